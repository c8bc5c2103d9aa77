package nodestate

// APIVersion names the shape of State. An edge refuses every other one.
const APIVersion = "selvedge.dev/node-state/v1"

// Engine is the newest version of the rules that render states; older ones keep
// rendering byte for byte as they did.
const Engine = 1

// State is everything that one node should run. It is a pure function of a
// commit, an engine version and the node: it holds no clock and no generation.
// Lists are sorted by name, but for those whose order means something.
type State struct {
	APIVersion string   `json:"apiVersion"`
	Engine     int      `json:"engine"`
	Node       string   `json:"node"`
	Workspace  string   `json:"workspace"` // path in the config repo
	Identity   Identity `json:"identity"`
	Apps       []App    `json:"apps,omitempty"`
	Remote     Remote   `json:"remote,omitzero"`
}

// Identity is the public half of the node's own key: a state is for the one who holds it.
type Identity struct {
	PublicKey string `json:"publicKey"` // nkey, U…
}

// Remote is what the cloud may ask of this node; each is off unless Git grants it.
type Remote struct {
	Logs    bool `json:"logs,omitempty"`
	Restart bool `json:"restart,omitempty"`
	Exec    bool `json:"exec,omitempty"`
	Write   bool `json:"write,omitempty"`
}

// And returns what both grant.
func (r Remote) And(o Remote) Remote {
	return Remote{Logs: r.Logs && o.Logs, Restart: r.Restart && o.Restart, Exec: r.Exec && o.Exec, Write: r.Write && o.Write}
}

// App is one workload of the node.
type App struct {
	Name       string      `json:"name"`
	Containers []Container `json:"containers"` // in start order
	// Ordered is how many of Containers, from the first, start one by one, each
	// healthy before the next; the others follow together.
	Ordered    int   `json:"ordered,omitempty"`
	DeadlineMS int64 `json:"deadlineMs"` // healthy within this time, or the node rolls back
}

// Container is one container of an app.
type Container struct {
	Name       string            `json:"name"`
	Image      string            `json:"image"`             // reference with a digest
	Command    []string          `json:"command,omitempty"` // replaces entrypoint and arguments
	Args       []string          `json:"args,omitempty"`    // replaces arguments only
	Env        map[string]string `json:"env,omitempty"`
	Ports      []Port            `json:"ports,omitempty"`
	Mounts     []Mount           `json:"mounts,omitempty"`
	Files      []File            `json:"files,omitempty"`
	MilliCPU   int64             `json:"milliCpu,omitempty"` // 1000: one core; 0: no limit
	CPUSet     string            `json:"cpuset,omitempty"`
	Memory     int64             `json:"memory,omitempty"` // bytes; 0: no limit
	PIDs       int64             `json:"pids,omitempty"`
	User       string            `json:"user,omitempty"`
	Privileged bool              `json:"privileged,omitempty"`
	ReadOnly   bool              `json:"readOnly,omitempty"`
	Network    string            `json:"network"` // bridge, host or none
	Restart    string            `json:"restart"` // always, on-failure or never
	Probe      *Probe            `json:"probe,omitempty"`
	StopSignal string            `json:"stopSignal"`
	StopMS     int64             `json:"stopMs"` // from the signal to the kill
	LogBytes   int64             `json:"logBytes"`
	LogFiles   int               `json:"logFiles"`
}

// Port publishes a port of the container on the node.
type Port struct {
	Name      string `json:"name"`
	Container int    `json:"container"`
	Host      int    `json:"host"`
	Protocol  string `json:"protocol"` // tcp or udp
	Address   string `json:"address"`
}

// Mount binds a path of the node into the container.
type Mount struct {
	Path     string `json:"path"` // in the container
	Host     string `json:"host"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// File is a config file, delivered read-only.
type File struct {
	Path    string `json:"path"` // in the container
	Content string `json:"content"`
}

// Probe tells whether the container is healthy; exactly one of HTTP, TCP, Exec is set.
type Probe struct {
	HTTP       *HTTPProbe `json:"http,omitempty"`
	TCP        *TCPProbe  `json:"tcp,omitempty"`
	Exec       *ExecProbe `json:"exec,omitempty"`
	IntervalMS int64      `json:"intervalMs"`
	TimeoutMS  int64      `json:"timeoutMs"`
	Failures   int        `json:"failures"`
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

// ExecProbe is healthy when the command exits 0.
type ExecProbe struct {
	Command []string `json:"command"`
}
