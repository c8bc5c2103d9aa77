package wire

import "time"

// Times of answers.
const (
	RestartTime = 15 * time.Minute            // that a node gives a restart: the longest grace periods are minutes
	AnswerTime  = RestartTime + 1*time.Minute // within which the bus lets a node answer
)

// Notice tells a node that there may be something new for it.
type Notice struct {
	Generation int64 `json:"generation,omitempty"` // of its published state
	Trust      bool  `json:"trust,omitempty"`      // root documents changed
}

// LogsRequest asks for what a container, or the agent, printed.
type LogsRequest struct {
	Stream     string    `json:"stream"` // where the node sends it
	By         string    `json:"by"`     // who asks, for the node's log
	Agent      bool      `json:"agent,omitempty"`
	App        string    `json:"app,omitempty"`
	Container  string    `json:"container,omitempty"` // empty: the app's only one, or all of them with their name in front
	Previous   bool      `json:"previous,omitempty"`  // of runs that ended, as far as they are kept
	Follow     bool      `json:"follow,omitempty"`
	Since      time.Time `json:"since,omitzero"`  // by the node's clock, as the times of its lines
	AgoMS      int64     `json:"agoMs,omitempty"` // in place of Since: milliseconds before now, whatever the node's clock says
	Tail       int       `json:"tail,omitempty"`  // lines; 0: all, -1: none of the past
	Timestamps bool      `json:"timestamps,omitempty"`
	Window     int       `json:"window"` // frames that may be sent before credit comes
}

// ExecRequest asks to run a command in a container.
type ExecRequest struct {
	Stream    string   `json:"stream"`
	By        string   `json:"by"`
	App       string   `json:"app"`
	Container string   `json:"container,omitempty"` // empty: the app's only one
	Command   []string `json:"command"`
	TTY       bool     `json:"tty,omitempty"`
	Stdin     bool     `json:"stdin,omitempty"`
	Rows      uint16   `json:"rows,omitempty"`
	Columns   uint16   `json:"columns,omitempty"`
	Window    int      `json:"window"`
}

// RestartRequest asks to restart an app, or one container of it.
type RestartRequest struct {
	By        string `json:"by"`
	App       string `json:"app"`
	Container string `json:"container,omitempty"`
}

// Answer answers every request; a nil Error is consent.
type Answer struct {
	Error   *Error `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
}

// Error says why a node does not do what it was asked.
type Error struct {
	Code    string `json:"code"` // one of the Code constants
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Codes of errors.
const (
	CodeDenied      = "denied"      // remote in the node's signed state does not grant it
	CodeNotFound    = "notFound"    // no such app or container here
	CodeInvalid     = "invalid"     // the request itself
	CodeBusy        = "busy"        // too many streams or requests, or a state is on trial
	CodeUnavailable = "unavailable" // the runtime does not answer, or the container does not run; later it may
	CodeFailed      = "failed"
)
