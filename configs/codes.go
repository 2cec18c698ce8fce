package configs

// The stable codes of problems that strict decoding finds by itself. They are
// explained in docs/problems.md; other packages add their own from 100 on. A
// code once released keeps its meaning.
const (
	CodeUnreadable   = "SLUICE-CFG-001" // the file cannot be read from disk
	CodeSyntax       = "SLUICE-CFG-002" // not YAML
	CodeTab          = "SLUICE-CFG-003" // a tab where YAML wants spaces
	CodeEncoding     = "SLUICE-CFG-004" // not UTF-8
	CodeTooLarge     = "SLUICE-CFG-005" // file, nesting or aliases beyond the limits
	CodeSecond       = "SLUICE-CFG-006" // a second YAML document in the file
	CodeEmpty        = "SLUICE-CFG-007" // nothing in the file
	CodeUnknownKey   = "SLUICE-CFG-008" // a key that nobody reads
	CodeDuplicateKey = "SLUICE-CFG-009" // the same key twice
	CodeKind         = "SLUICE-CFG-010" // a list where a text is wanted, and the like
	CodeNumber       = "SLUICE-CFG-011" // not a number, or one that can be read in two ways
	CodeNumberRange  = "SLUICE-CFG-012" // a number that does not fit
	CodeBool         = "SLUICE-CFG-013" // not true or false
	CodeDuration     = "SLUICE-CFG-014" // not a duration
	CodeSize         = "SLUICE-CFG-015" // not a size in bytes
	CodeNoValue      = "SLUICE-CFG-016" // a key without a value
	CodeAlias        = "SLUICE-CFG-017" // an alias or merge key that cannot be followed
	CodeYAMLTag      = "SLUICE-CFG-018" // an explicit YAML tag
	CodeSetting      = "SLUICE-CFG-020" // a setting that its owner refuses
)
