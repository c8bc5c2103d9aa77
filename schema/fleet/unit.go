package fleet

// Unit is one evaluated workspace directory.
type Unit struct {
	Platform    Platform               `json:"platform"`
	Folder      *Folder                `json:"folder,omitempty"` // the nearest folder above
	Workspace   *Workspace             `json:"workspace,omitempty"`
	Identity    map[string]Identity    `json:"identity,omitempty"`
	RoleBinding map[string]RoleBinding `json:"roleBinding,omitempty"`
	Policy      map[string]Policy      `json:"policy,omitempty"`
	AccessGuide map[string]AccessGuide `json:"accessGuide,omitempty"`
	Node        map[string]Node        `json:"node,omitempty"`
	App         map[string]App         `json:"app,omitempty"`
	Model       map[string]Model       `json:"model,omitempty"`
	Config      map[string]Config      `json:"config,omitempty"`
	Secret      map[string]Secret      `json:"secret,omitempty"`
	DeviceModel map[string]DeviceModel `json:"deviceModel,omitempty"`
	Device      map[string]Device      `json:"device,omitempty"`
	Endpoint    map[string]Endpoint    `json:"endpoint,omitempty"`
	Route       map[string]Route       `json:"route,omitempty"`
}

// Platform says who runs the fleet and what holds for all of it.
type Platform struct {
	Name string `json:"name"`
	// Engine is the version of the rules that render node states. Raising it is a
	// reviewed change, so that an upgrade of the reconciler rewrites nothing.
	Engine int `json:"engine"`
}

// Folder is a part of the tree, such as a plant.
type Folder struct {
	Title string `json:"title"`
}

// Workspace is a team's part of the tree, the only place where nodes live.
type Workspace struct {
	Title string `json:"title"`
}

// Identity is a person or service known to the platform.
type Identity struct {
	Kind   string   `json:"kind"` // user or service
	Emails []string `json:"emails,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// Token is the identity's tokens for the hub's API, by name.
	Token map[string]Token `json:"token,omitempty"`
}

// Token is a token for the hub's API, of which Git knows a hash.
type Token struct {
	Hash    string `json:"hash"`            // sha256: and 64 hex digits
	Expires string `json:"expires"`         // RFC 3339
	Role    string `json:"role,omitempty"`  // at most this; empty: all that the identity has
	Scope   string `json:"scope,omitempty"` // path; there and below only
}

// RoleBinding grants a role to subjects in the directory that declares it and below.
type RoleBinding struct {
	Role     string   `json:"role"`     // viewer, editor or admin
	Subjects []string `json:"subjects"` // user:NAME, group:NAME or service:NAME
}

// Policy is a guardrail on merged values. Its rule is the CUE definition #rule,
// which has no JSON form: only the evaluator applies it.
type Policy struct {
	Description string `json:"description"`
	Target      string `json:"target"` // the kind whose merged values it binds: app or node
}

// AccessGuide holds defaults for nodes that join under a name prefix.
type AccessGuide struct {
	Prefix   string            `json:"prefix"`
	Labels   map[string]string `json:"labels,omitempty"`
	MaxNodes int               `json:"maxNodes,omitempty"`
	Defaults *NodeDefaults     `json:"defaults,omitempty"`
}

// NodeDefaults are fields of a node that joins.
type NodeDefaults struct {
	Capacity    *Capacity `json:"capacity,omitempty"`
	Schedulable bool      `json:"schedulable"`
	Remote      Remote    `json:"remote"`
}

// Node is one machine.
type Node struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Identity    *NodeIdentity     `json:"identity,omitempty"` // absent: awaiting enrolment, gets no state
	Capacity    *Capacity         `json:"capacity,omitempty"`
	Schedulable bool              `json:"schedulable"`
	Drain       bool              `json:"drain"`
	Windows     []Window          `json:"windows,omitempty"`
	Remote      Remote            `json:"remote"`
}

// NodeIdentity holds the public halves of the node's own keys.
type NodeIdentity struct {
	PublicKey string `json:"publicKey"`           // nkey, U…
	Recipient string `json:"recipient,omitempty"` // age1…
}

// Capacity is what apps on the node may claim together.
type Capacity struct {
	CPU    float64 `json:"cpu,omitempty"`    // cores
	Memory string  `json:"memory,omitempty"` // quantity, e.g. 4GiB
}

// Window is a recurring time in which updates may start.
type Window struct {
	Cron     string `json:"cron"`
	Duration string `json:"duration"`
	Timezone string `json:"timezone"`
}

// Remote says what the cloud may ask of a node over the live plane.
type Remote struct {
	Logs    bool `json:"logs"`
	Restart bool `json:"restart"`
	Exec    bool `json:"exec"`
	Write   bool `json:"write"` // write device registers
}

// Model is an AI model: an OCI artifact that apps mount.
type Model struct {
	Artifact string `json:"artifact"`
}

// Config is a set of files for apps, by file name.
type Config struct {
	File map[string]string `json:"file"`
}

// Secret is a value encrypted to the reconciler's age key.
type Secret struct {
	Age string `json:"age"`
}
