package mapping

// The stable codes of problems in the mapping part of a site file or profile.
// They are explained in docs/problems.md. A code once released keeps its
// meaning.
const (
	CodeName         = "SLUICE-CFG-101" // a name with signs that names may not have, or none at all
	CodeSameName     = "SLUICE-CFG-102" // two things of one name
	CodeBus          = "SLUICE-CFG-103" // a bus that says too little, too much or the wrong thing
	CodeUnknownBus   = "SLUICE-CFG-104" // a bus that is not in buses
	CodeSamePort     = "SLUICE-CFG-105" // one port in two buses
	CodeUnit         = "SLUICE-CFG-106" // a unit id that cannot be
	CodeProfile      = "SLUICE-CFG-107" // a profile that is not there or cannot be used
	CodePattern      = "SLUICE-CFG-108" // a pattern that matches no point
	CodeAddress      = "SLUICE-CFG-109" // an address that cannot be read or does not exist
	CodeReference    = "SLUICE-CFG-110" // an address that looks like a manual's reference (warning)
	CodeType         = "SLUICE-CFG-111" // an unknown type, or one that the table cannot hold
	CodeOrder        = "SLUICE-CFG-112" // an unknown byte order
	CodeScale        = "SLUICE-CFG-113" // a scale, offset, rounding or scale factor that cannot be
	CodeWord         = "SLUICE-CFG-114" // a word in a short form that means nothing there
	CodeInterval     = "SLUICE-CFG-115" // an interval out of bounds
	CodeDeadband     = "SLUICE-CFG-116" // a deadband that cannot be
	CodeEnum         = "SLUICE-CFG-117" // a map or bits entry that cannot be
	CodeTopic        = "SLUICE-CFG-118" // a topic or template that MQTT or the point cannot have
	CodeSameTopic    = "SLUICE-CFG-119" // two points with one topic
	CodeTag          = "SLUICE-CFG-120" // a tag that cannot be
	CodeNoPoints     = "SLUICE-CFG-121" // a device without a point
	CodeNotYet       = "SLUICE-CFG-122" // a key that this version knows but does not carry out
	CodeInvalidValue = "SLUICE-CFG-123" // an invalid marker or range that cannot be
	CodeNoAddress    = "SLUICE-CFG-124" // a point that does not say what to read
	CodePath         = "SLUICE-CFG-125" // a JSON path that cannot be
	CodeNeverStale   = "SLUICE-CFG-126" // an MQTT device whose silence nobody would notice (warning)
	CodeWrite        = "SLUICE-CFG-127" // limits of writes that cannot be
)
