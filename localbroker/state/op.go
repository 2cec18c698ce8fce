package state

// Bucket names one kind of record. A bucket is kept sorted by key.
type Bucket string

// The buckets. FORMAT.md says what their records look like.
const (
	Sessions      Bucket = "sessions"      // client id -> Session
	Ages          Bucket = "ages"          // client id -> how long the session has been without its client
	Wills         Bucket = "wills"         // client id -> Will
	Subscriptions Bucket = "subscriptions" // client id, filter -> Subscription
	Received      Bucket = "received"      // client id, packet identifier: QoS 2 messages that are stored and not released
	Released      Bucket = "released"      // client id, packet identifier -> seq: QoS 2 messages released and not completed
	RetainedTopic Bucket = "retained"      // topic -> Retained
	Marks         Bucket = "marks"         // "log" -> seq
)

// Buckets are all of them, in the order in which Stats tells them.
var Buckets = []Bucket{Sessions, Ages, Wills, Subscriptions, Received, Released, RetainedTopic, Marks}

// Op is one change. The zero Kind puts.
type Op struct {
	Kind   Kind
	Bucket Bucket
	Key    []byte // 1 to MaxKey bytes; Apply does not keep it
	Value  []byte // of a put; up to MaxValue bytes; Apply does not keep it
}

// Kind says what an Op does with its key.
type Kind byte

// The kinds of Op.
const (
	Put          Kind = iota // the key has Value from now on
	Delete                   // the key is gone; no error if it was not there
	DeletePrefix             // all keys are gone that begin with Key
)

// Bounds of one Op, in bytes.
const (
	MaxKey   = 4096
	MaxValue = 1 << 20
)
