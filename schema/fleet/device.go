package fleet

// DeviceModel describes a kind of device by its properties.
type DeviceModel struct {
	Description string              `json:"description,omitempty"`
	Property    map[string]Property `json:"property"`
}

// Property is one value that a device has.
type Property struct {
	Type   string          `json:"type"`
	Access string          `json:"access"` // r, w or rw
	Unit   string          `json:"unit,omitempty"`
	Min    *float64        `json:"min,omitempty"`
	Max    *float64        `json:"max,omitempty"`
	Modbus *ModbusRegister `json:"modbus,omitempty"`
}

// ModbusRegister is where a property lies.
type ModbusRegister struct {
	Table   string  `json:"table"` // coil, discrete, input or holding
	Address int     `json:"address"`
	Order   string  `json:"order"` // byte order: ABCD, BADC, CDAB or DCBA
	Scale   float64 `json:"scale"`
	Offset  float64 `json:"offset"`
	Bit     *int    `json:"bit,omitempty"`
}

// Device is one device behind a node.
type Device struct {
	Model   string            `json:"model"`
	Node    string            `json:"node"`
	Modbus  *ModbusEndpoint   `json:"modbus,omitempty"`
	Poll    string            `json:"poll"`
	Desired map[string]any    `json:"desired,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// ModbusEndpoint is how a device is reached: exactly one of TCP and RTU.
type ModbusEndpoint struct {
	TCP  string     `json:"tcp,omitempty"` // host:port
	RTU  *ModbusRTU `json:"rtu,omitempty"`
	Unit int        `json:"unit"`
}

// ModbusRTU is a serial line.
type ModbusRTU struct {
	Port     string `json:"port"`
	Baud     int    `json:"baud"`
	Parity   string `json:"parity"` // none, even or odd
	DataBits int    `json:"dataBits"`
	StopBits int    `json:"stopBits"`
}

// Endpoint is a service outside the fleet.
type Endpoint struct {
	REST *RESTEndpoint `json:"rest,omitempty"`
}

// RESTEndpoint is a service reached over HTTP.
type RESTEndpoint struct {
	URL    string `json:"url"`
	Secret string `json:"secret,omitempty"`
}

// Route moves messages between nodes and endpoints.
type Route struct {
	From  RouteFrom `json:"from"`
	Where string    `json:"where,omitempty"` // CEL
	To    RouteTo   `json:"to"`
}

// RouteFrom is a route's source: a topic on selected nodes, or a REST path of the hub.
type RouteFrom struct {
	Selector Selector `json:"selector,omitempty"`
	Topic    string   `json:"topic,omitempty"`
	REST     string   `json:"rest,omitempty"`
}

// RouteTo is a route's target: an endpoint, or a topic on selected nodes.
type RouteTo struct {
	Endpoint string   `json:"endpoint,omitempty"`
	Selector Selector `json:"selector,omitempty"`
	Topic    string   `json:"topic,omitempty"`
}
