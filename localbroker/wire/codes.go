package wire

// Types of packets, the high four bits of the first byte [MQTT-2.1.2].
const (
	TypeConnect     byte = 1
	TypeConnack     byte = 2
	TypePublish     byte = 3
	TypePuback      byte = 4
	TypePubrec      byte = 5
	TypePubrel      byte = 6
	TypePubcomp     byte = 7
	TypeSubscribe   byte = 8
	TypeSuback      byte = 9
	TypeUnsubscribe byte = 10
	TypeUnsuback    byte = 11
	TypePingreq     byte = 12
	TypePingresp    byte = 13
	TypeDisconnect  byte = 14
	TypeAuth        byte = 15
)

// Reason codes of MQTT 5 [MQTT-2.4].
const (
	CodeSuccess                 byte = 0x00 // also: normal disconnection, granted QoS 0
	CodeDisconnectWithWill      byte = 0x04
	CodeNoMatchingSubscribers   byte = 0x10
	CodeNoSubscriptionExisted   byte = 0x11
	CodeContinueAuthentication  byte = 0x18
	CodeReauthenticate          byte = 0x19
	CodeUnspecified             byte = 0x80
	CodeMalformed               byte = 0x81
	CodeProtocol                byte = 0x82
	CodeImplementation          byte = 0x83
	CodeUnsupportedVersion      byte = 0x84
	CodeClientID                byte = 0x85
	CodeBadLogin                byte = 0x86
	CodeNotAuthorized           byte = 0x87
	CodeServerUnavailable       byte = 0x88
	CodeServerBusy              byte = 0x89
	CodeBanned                  byte = 0x8a
	CodeShuttingDown            byte = 0x8b
	CodeBadAuthenticationMethod byte = 0x8c
	CodeKeepAlive               byte = 0x8d
	CodeTakenOver               byte = 0x8e
	CodeFilterInvalid           byte = 0x8f
	CodeTopicInvalid            byte = 0x90
	CodeIDInUse                 byte = 0x91
	CodeIDNotFound              byte = 0x92
	CodeReceiveMaximum          byte = 0x93
	CodeTopicAlias              byte = 0x94
	CodeTooLarge                byte = 0x95
	CodeRateTooHigh             byte = 0x96
	CodeQuota                   byte = 0x97
	CodeAdministrative          byte = 0x98
	CodePayloadFormat           byte = 0x99
	CodeRetainNotSupported      byte = 0x9a
	CodeQoSNotSupported         byte = 0x9b
	CodeSharedNotSupported      byte = 0x9e
	CodeConnectionRate          byte = 0x9f
	CodeMaximumConnectTime      byte = 0xa0
)

// Cause says in one word why something is refused. Refusals are counted by it.
type Cause string

// The causes.
const (
	RefusedClients      Cause = "too-many-clients"
	RefusedAddress      Cause = "too-many-from-address"
	RefusedPending      Cause = "too-many-pending"
	RefusedSessions     Cause = "too-many-sessions"
	RefusedUserSessions Cause = "too-many-sessions-of-a-user"
	RefusedTimeout      Cause = "connect-timeout"
	RefusedSlowPacket   Cause = "packet-too-slow"
	RefusedTooLarge     Cause = "packet-too-large"
	RefusedTopic        Cause = "topic-limits"
	RefusedMalformed    Cause = "malformed"
	RefusedAuth         Cause = "not-authenticated"
	RefusedLoginRate    Cause = "login-rate"
	RefusedTLS          Cause = "tls-handshake"
	RefusedCertificate  Cause = "client-certificate"
	RefusedACL          Cause = "not-authorised"
	RefusedSubscription Cause = "too-many-subscriptions"
	RefusedRetained     Cause = "retained-full"
	RefusedOrigin       Cause = "web-origin"
	RefusedLog          Cause = "log-refused"
	RefusedKeepAlive    Cause = "keep-alive"
	RefusedStalled      Cause = "stalled"
	RefusedQuota        Cause = "receive-maximum"
	RefusedShutdown     Cause = "shutting-down"
)

// Refusal is why a packet or a client is refused: what to count and what to
// tell the client.
type Refusal struct {
	Cause Cause
	Code  byte   // MQTT 5 reason code for the DISCONNECT or CONNACK, 0x80 or above
	What  string // in words, constant text
}

var _ error = (*Refusal)(nil)

// Error returns what was wrong.
func (r *Refusal) Error() string { return r.What }

// malformed refuses a packet that cannot be parsed.
func malformed(what string) *Refusal { return &Refusal{RefusedMalformed, CodeMalformed, what} }

// violation refuses a packet that can be parsed and is not allowed.
func violation(what string) *Refusal { return &Refusal{RefusedMalformed, CodeProtocol, what} }
