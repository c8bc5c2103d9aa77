package wire

import (
	"time"

	"selvedge/schema/nodestate"
)

// Intervals that both sides know.
const (
	StatusInterval = 10 * time.Second // between statuses, with jitter; sooner after a change, at least a second apart
	UnknownAfter   = 45 * time.Second // without a status a node is unknown
)

// Status is all that a node knows of itself: each one replaces the one before.
type Status struct {
	Node  string    `json:"node"`
	Epoch string    `json:"epoch"` // random, new at each start of the agent
	Seq   uint64    `json:"seq"`   // grows within an epoch
	Time  time.Time `json:"time"`  // by the node's clock

	Agent   Agent            `json:"agent"`
	Machine Machine          `json:"machine"`
	State   State            `json:"state"`
	Apps    []App            `json:"apps,omitempty"`
	LeftOut int              `json:"leftOut,omitempty"` // instances that there was no room for
	Usage   *Usage           `json:"usage,omitempty"`
	Well    bool             `json:"well"`            // runs what it knows to be wanted, in health
	Why     string           `json:"why,omitempty"`   // it is not well
	Remote  nodestate.Remote `json:"remote,omitzero"` // what it grants the hub
	// Conditions hold besides health; those that do not hold are left out.
	Conditions []Condition `json:"conditions,omitempty"`
}

// Agent is the agent's program.
type Agent struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Runtime string    `json:"runtime,omitempty"` // e.g. containerd 1.6.20
	Memory  int64     `json:"memory,omitempty"`  // resident bytes
}

// Machine is what the node is.
type Machine struct {
	Hostname string    `json:"hostname"`
	OS       string    `json:"os"`     // PRETTY_NAME of os-release(5)
	Kernel   string    `json:"kernel"` // release
	Arch     string    `json:"arch"`   // as Go names it
	CPUs     int       `json:"cpus"`
	Memory   int64     `json:"memory"` // bytes
	Booted   time.Time `json:"booted,omitzero"`
}

// State tells where the node stands between states. A zero Ref: there is none.
type State struct {
	Pulled    Ref        `json:"pulled,omitzero"`   // the newest verified
	Current   Ref        `json:"current,omitzero"`  // being run
	LastGood  Ref        `json:"lastGood,omitzero"` // proven
	Phase     string     `json:"phase"`             // idle, held, prefetch, applying, rolledback
	Problem   string     `json:"problem,omitempty"` // why it does not get on
	Rejected  []Rejected `json:"rejected,omitempty"`
	Refused   *Refused   `json:"refused,omitempty"` // an answer that was not believed: an alarm
	Contact   time.Time  `json:"contact,omitzero"`  // with the registry
	LinkError string     `json:"linkError,omitempty"`
	Hold      *Hold      `json:"hold,omitempty"`
}

// Ref names a published state.
type Ref struct {
	Generation int64  `json:"generation"`
	Digest     string `json:"digest"` // of the state's manifest
	Commit     string `json:"commit,omitempty"`
}

// Rejected is a state that failed on the node.
type Rejected struct {
	Generation int64     `json:"generation"`
	At         time.Time `json:"at"`
	Reason     string    `json:"reason"`
}

// Refused is an answer of the registry that the node did not believe.
type Refused struct {
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
	Count   int       `json:"count"`
}

// Hold is a node that a person keeps where it is.
type Hold struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// App is one app's part of a Status.
type App struct {
	Name       string     `json:"name"`
	Healthy    bool       `json:"healthy"`
	Containers []Instance `json:"containers"`
}

// Instance is one container of an app on a node.
type Instance struct {
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"`
	Image    string    `json:"image"`
	State    string    `json:"state"` // absent, created, running, paused, exited, lost
	Healthy  bool      `json:"healthy"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exitCode"` // when exited
	LastExit LastExit  `json:"lastExit,omitzero"`
	Since    time.Time `json:"since,omitzero"`
	Problem  string    `json:"problem,omitempty"`
	Usage    *Usage    `json:"usage,omitempty"`
}

// LastExit is how the run before ended, or the last one if none goes on, as far as the agent saw it.
type LastExit struct {
	Code   int       `json:"code"` // if it ended by itself
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"` // it did not end by itself
}

// Usage is what a node or an instance uses. Counters start at zero with the machine or
// the container.
type Usage struct {
	CPU         float64  `json:"cpu"`                   // cores in use, over the last interval
	Load        float64  `json:"load,omitempty"`        // of one minute; nodes only
	Memory      int64    `json:"memory"`                // bytes in use, without what the kernel can drop
	MemoryLimit int64    `json:"memoryLimit,omitempty"` // bytes; nodes: of the machine
	Disk        int64    `json:"disk,omitempty"`        // bytes in use; nodes: of the agent's file system; instances: written to the container's own layer, counted every few minutes
	DiskLimit   int64    `json:"diskLimit,omitempty"`
	NetRx       int64    `json:"netRx"` // bytes since the start; nodes: of all but loopback
	NetTx       int64    `json:"netTx"`
	Temperature *float64 `json:"temperature,omitempty"` // degrees Celsius, the hottest zone or core; nodes only
}

// Condition is something about a node that a person should know.
type Condition struct {
	Type    string    `json:"type"` // one of the Condition constants
	Message string    `json:"message"`
	Since   time.Time `json:"since,omitzero"`
}

// Types of conditions. The hub adds those that only it can tell.
const (
	ConditionDiskPressure   = "DiskPressure"
	ConditionMemoryPressure = "MemoryPressure"
	ConditionRuntimeDown    = "RuntimeDown"
	ConditionHeld           = "Held"
	ConditionRejected       = "Rejected" // the newest generation failed here
	ConditionRefused        = "Refused"  // the registry served what cannot be believed
	ConditionStore          = "Store"    // the agent's own files
	ConditionClockOff       = "ClockOff" // by the hub
	ConditionBehind         = "Behind"   // by the hub: the newest generation has not arrived for long: the freeze alarm
	ConditionIdentity       = "Identity" // by the hub: reports another version of itself than Git has
)

// Event is something that happened on a node.
type Event struct {
	Seq        uint64    `json:"seq"` // grows within an epoch
	Time       time.Time `json:"time"`
	Severity   string    `json:"severity"` // info, warning, error
	Reason     string    `json:"reason"`   // one CamelCase word, e.g. Started, Unhealthy, RolledBack, ExecDenied
	App        string    `json:"app,omitempty"`
	Container  string    `json:"container,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	Message    string    `json:"message"`
}

// Events are a node's latest, oldest first. They are sent when they happen and again, as far
// as the agent remembers, after each connection; (epoch, seq) tells what is known already.
type Events struct {
	Node   string  `json:"node"`
	Epoch  string  `json:"epoch"`
	Events []Event `json:"events"`
}
