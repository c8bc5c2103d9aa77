package fleet

import "encoding/json"

// App is one workload. Params is free-form: only CUE expressions of the same app read it.
type App struct {
	Params     map[string]any       `json:"params,omitempty"`
	Placement  Placement            `json:"placement"`
	Container  map[string]Container `json:"container,omitempty"`
	Config     map[string]ConfigRef `json:"config,omitempty"` // by name of a config
	Model      map[string]ModelRef  `json:"model,omitempty"`
	Secret     map[string]SecretRef `json:"secret,omitempty"`
	Override   []Override           `json:"override,omitempty"`
	Update     Update               `json:"update"`
	Rollout    *Rollout             `json:"rollout,omitempty"`
	Kubernetes *Kubernetes          `json:"kubernetes,omitempty"`
}

// Placement says on which nodes of a workspace an app runs: on those that match
// the selector, and on those that are named. Neither: nowhere.
type Placement struct {
	Selector Selector `json:"selector,omitempty"`
	Nodes    []string `json:"nodes,omitempty"`
	Replicas int      `json:"replicas,omitempty"`
	Spread   string   `json:"spread,omitempty"`
}

// Container is one container of an app; with overrides merged in, all of it is concrete.
type Container struct {
	Image      string            `json:"image"`
	Command    []string          `json:"command,omitempty"` // replaces the image's entrypoint and arguments
	Args       []string          `json:"args,omitempty"`    // replaces the image's arguments only
	Env        map[string]string `json:"env,omitempty"`
	Port       map[string]Port   `json:"port,omitempty"`
	Mount      map[string]Mount  `json:"mount,omitempty"` // bind mounts, by absolute path in the container
	Resources  Resources         `json:"resources"`
	User       string            `json:"user,omitempty"` // uid, uid:gid or a name of the image
	Privileged bool              `json:"privileged"`
	ReadOnly   bool              `json:"readOnly"` // root file system
	Network    string            `json:"network"`  // bridge, host or none
	Restart    string            `json:"restart"`  // always, on-failure or never
	Probe      *Probe            `json:"probe,omitempty"`
	Stop       Stop              `json:"stop"`
	Log        Log               `json:"log"`
}

// Port publishes a container's port on the node.
type Port struct {
	Container int    `json:"container"`
	Host      int    `json:"host,omitempty"` // 0: reachable from the node only, not published
	Protocol  string `json:"protocol"`       // tcp or udp
	Address   string `json:"address"`        // the node's address to listen on
}

// Mount binds a path of the node into a container.
type Mount struct {
	Host     string `json:"host"`
	ReadOnly bool   `json:"readOnly"`
}

// Resources are hard limits.
type Resources struct {
	CPU    float64 `json:"cpu,omitempty"`    // cores; 0: no limit
	CPUSet string  `json:"cpuset,omitempty"` // e.g. 0-1,3
	Memory string  `json:"memory,omitempty"` // quantity, e.g. 64MiB; empty: no limit
	PIDs   int     `json:"pids,omitempty"`
}

// Probe tells whether a container is healthy; exactly one of HTTP, TCP, Exec is set.
type Probe struct {
	HTTP     *HTTPProbe `json:"http,omitempty"`
	TCP      *TCPProbe  `json:"tcp,omitempty"`
	Exec     *ExecProbe `json:"exec,omitempty"`
	Interval string     `json:"interval"`
	Timeout  string     `json:"timeout"`
	Failures int        `json:"failures"`
}

// HTTPProbe is healthy when a GET answers 200–399.
type HTTPProbe struct {
	Port int    `json:"port"`
	Path string `json:"path"`
}

// TCPProbe is healthy when a connection opens.
type TCPProbe struct {
	Port int `json:"port"`
}

// ExecProbe is healthy when the command, run in the container, exits 0.
type ExecProbe struct {
	Command []string `json:"command"`
}

// Stop says how a container is asked to end.
type Stop struct {
	Signal  string `json:"signal"`
	Timeout string `json:"timeout"`
}

// Log bounds what is kept of a container's output on the node.
type Log struct {
	MaxSize  string `json:"maxSize"`
	MaxFiles int    `json:"maxFiles"`
}

// ConfigRef mounts a config's files into the app's containers.
type ConfigRef struct {
	Mount     string `json:"mount"`               // directory in the container
	Container string `json:"container,omitempty"` // empty: all of the app
}

// ModelRef mounts a model into the app's containers.
type ModelRef struct {
	Artifact string `json:"artifact,omitempty"`
	Mount    string `json:"mount"`
}

// SecretRef gives a secret to the app's containers.
type SecretRef struct {
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}

// Override changes containers of the app on the nodes that it selects. Its fields
// are kept as JSON: a merge patch (RFC 7396) of the container of that name.
type Override struct {
	Selector  Selector                   `json:"selector,omitempty"`
	Nodes     []string                   `json:"nodes,omitempty"`
	Container map[string]json.RawMessage `json:"container,omitempty"`
}

// Update says how a new version replaces the old one on a node.
type Update struct {
	Order    []string `json:"order,omitempty"` // containers started one by one, each healthy before the next; the others follow
	Gate     string   `json:"gate,omitempty"`
	Deadline string   `json:"deadline"` // healthy by then, or the node rolls back
}

// Rollout spreads a change over the fleet in waves.
type Rollout struct {
	Waves     []Wave `json:"waves"`
	MaxFailed string `json:"maxFailed,omitempty"`
	Soak      string `json:"soak,omitempty"`
}

// Wave is one step of a rollout.
type Wave struct {
	Selector Selector `json:"selector,omitempty"`
	Percent  int      `json:"percent,omitempty"`
}

// Kubernetes names a directory of objects for nodes that run Kubernetes.
type Kubernetes struct {
	Path string `json:"path"`
}
