package command

import "sluice/configs"

// Config is the section "commands" of the site file.
type Config struct {
	// Plain takes bare values on the command topics of the local broker, too:
	// without an id, a repeated one cannot be told.
	Plain bool `yaml:"plain"`
	// AuditSize is how large a file of the audit log grows, 64 KiB to 1 GiB, and
	// AuditFiles how many full ones are kept, 1 to 10,000.
	AuditSize  configs.Size `yaml:"audit_size"`
	AuditFiles int          `yaml:"audit_files"`
}

// The limits of the audit log.
const (
	minAuditSize  = 64 << 10
	maxAuditSize  = 1 << 30
	maxAuditFiles = 10000
)

// SetDefaults sets what holds without the section.
func (c *Config) SetDefaults() { *c = Config{AuditSize: 1 << 20, AuditFiles: 16} }

// Validate returns what is wrong with the section.
func (c *Config) Validate() []configs.FieldError {
	var problems []configs.FieldError
	if c.AuditSize < minAuditSize || c.AuditSize > maxAuditSize {
		problems = append(problems, configs.FieldError{Field: "audit_size", Message: "audit_size is out of range", Fix: "64KiB to 1GiB"})
	}
	if c.AuditFiles < 1 || c.AuditFiles > maxAuditFiles {
		problems = append(problems, configs.FieldError{Field: "audit_files", Message: "audit_files is out of range", Fix: "1 to 10000"})
	}
	return problems
}
