package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

// maxItems bounds what is collected from the pages of a list.
const maxItems = 500_000

// page is how many items are asked for at a time.
const page = 1000

// Query selects nodes, and what is on them.
type Query struct {
	Labels    string // as kubectl writes selectors: role=gateway,line!=2,site in (a,b)
	Workspace string
	Folder    string
	Status    []hubapi.Readiness // any of them; empty: all
	App       string
	Condition string
	Search    string
	Sort      string // name, workspace, status, cpu, memory, restarts or lastSeen, with - in front backwards; empty: by name
	Limit     int    // at most so many in all; 0 means all
}

func (q Query) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("labels", q.Labels)
	set("workspace", q.Workspace)
	set("folder", q.Folder)
	set("app", q.App)
	set("condition", q.Condition)
	set("q", q.Search)
	set("sort", q.Sort)
	for _, s := range q.Status {
		v.Add("status", string(s))
	}
	return v
}

// all collects the pages of a list.
func all[T any](ctx context.Context, c *Client, path string, v url.Values, limit int) (hubapi.List[T], error) {
	if limit <= 0 || limit > maxItems {
		limit = maxItems
	}
	var whole hubapi.List[T]
	if v == nil {
		v = url.Values{}
	}
	for {
		v.Set("limit", strconv.Itoa(min(page, limit-len(whole.Items))))
		var l hubapi.List[T]
		if err := c.call(ctx, http.MethodGet, path, v, nil, &l); err != nil {
			return hubapi.List[T]{}, err
		}
		whole.Items = append(whole.Items, l.Items...)
		whole.Total, whole.Continue = l.Total, l.Continue
		// a page may be empty and yet have another one behind it
		if l.Continue == "" || l.Continue == v.Get("continue") || len(whole.Items) >= limit {
			if len(whole.Items) > limit {
				whole.Items = whole.Items[:limit]
			}
			if whole.Items == nil {
				whole.Items = []T{}
			}
			return whole, nil
		}
		v.Set("continue", l.Continue)
	}
}

func get[T any](ctx context.Context, c *Client, path string, v url.Values) (T, error) {
	var out T
	err := c.call(ctx, http.MethodGet, path, v, nil, &out)
	return out, err
}

func setTime(v url.Values, name string, t time.Time) {
	if !t.IsZero() {
		v.Set(name, t.UTC().Format(time.RFC3339Nano))
	}
}

func nodePath(node, more string) string { return "/nodes/" + url.PathEscape(node) + more }

// Whoami returns whose the token is.
func (c *Client) Whoami(ctx context.Context) (hubapi.Whoami, error) {
	return get[hubapi.Whoami](ctx, c, "/whoami", nil)
}

// Summary counts what the caller may see.
func (c *Client) Summary(ctx context.Context) (hubapi.Summary, error) {
	return get[hubapi.Summary](ctx, c, "/summary", nil)
}

// Nodes lists nodes, all pages of them.
func (c *Client) Nodes(ctx context.Context, q Query) (hubapi.List[hubapi.Node], error) {
	return all[hubapi.Node](ctx, c, "/nodes", q.values(), q.Limit)
}

// Node returns all that is known of a node.
func (c *Client) Node(ctx context.Context, name string) (hubapi.NodeDetail, error) {
	return get[hubapi.NodeDetail](ctx, c, nodePath(name, ""), nil)
}

// Metrics returns the history of a node's usage; a zero time asks for all that is kept.
func (c *Client) Metrics(ctx context.Context, node string, since time.Time) (hubapi.Metrics, error) {
	v := url.Values{}
	setTime(v, "since", since)
	return get[hubapi.Metrics](ctx, c, nodePath(node, "/metrics"), v)
}

// Apps lists apps with how they do.
func (c *Client) Apps(ctx context.Context, q Query) (hubapi.List[hubapi.App], error) {
	return all[hubapi.App](ctx, c, "/apps", q.values(), q.Limit)
}

// Instances lists the containers of apps.
func (c *Client) Instances(ctx context.Context, q Query) (hubapi.List[hubapi.Instance], error) {
	return all[hubapi.Instance](ctx, c, "/instances", q.values(), q.Limit)
}

// EventQuery selects events.
type EventQuery struct {
	Node      string // a name that nobody has is an error
	Workspace string
	Folder    string
	App       string
	Reason    string
	Severity  string // at least: info, warning or error
	Search    string // part of the message, in any case
	Since     time.Time
	Limit     int // at most so many in all; 0 means all
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"workspace": q.Workspace, "folder": q.Folder, "app": q.App, "reason": q.Reason, "severity": q.Severity, "q": q.Search} {
		if s != "" {
			v.Set(name, s)
		}
	}
	setTime(v, "since", q.Since)
	return v
}

// Events lists events, newest first.
func (c *Client) Events(ctx context.Context, q EventQuery) (hubapi.List[hubapi.Event], error) {
	path := "/events"
	if q.Node != "" {
		path = nodePath(q.Node, "/events")
	}
	return all[hubapi.Event](ctx, c, path, q.values(), q.Limit)
}

// Changes lists commits that took effect, newest first.
func (c *Client) Changes(ctx context.Context, limit int) (hubapi.List[hubapi.Change], error) {
	return all[hubapi.Change](ctx, c, "/changes", url.Values{}, limit)
}

// Change returns how far one commit got, node by node.
func (c *Client) Change(ctx context.Context, commit string) (hubapi.Change, error) {
	return get[hubapi.Change](ctx, c, "/changes/"+url.PathEscape(commit), nil)
}

// Guides lists guides that nodes may join by.
func (c *Client) Guides(ctx context.Context) (hubapi.List[hubapi.Guide], error) {
	return all[hubapi.Guide](ctx, c, "/guides", url.Values{}, 0)
}

// JoinTokens makes tokens that let nodes in. It is asked once: nobody knows what became of
// tokens whose answer was lost.
func (c *Client) JoinTokens(ctx context.Context, r hubapi.JoinTokenRequest) (hubapi.JoinTokens, error) {
	var out hubapi.JoinTokens
	err := c.call(ctx, http.MethodPost, "/join-tokens", nil, r, &out)
	return out, err
}

// Pending lists nodes that wait for approval.
func (c *Client) Pending(ctx context.Context) (hubapi.List[hubapi.Pending], error) {
	return all[hubapi.Pending](ctx, c, "/pending", url.Values{}, 0)
}

// Reject forgets a node that waits.
func (c *Client) Reject(ctx context.Context, code string) error {
	return c.call(ctx, http.MethodDelete, "/pending/"+url.PathEscape(code), nil, nil, nil)
}

// Restart restarts an app on a node, or one container of it.
func (c *Client) Restart(ctx context.Context, node string, r hubapi.RestartRequest) error {
	return c.callWithin(ctx, slowest, http.MethodPost, nodePath(node, "/restart"), nil, r, nil)
}

// AuditQuery selects entries of the audit log.
type AuditQuery struct {
	Subject   string // e.g. user:ana
	Operation string // e.g. exec
	Node      string
	Limit     int // at most so many in all; 0 means all
}

// Audit lists what was done, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (hubapi.List[hubapi.AuditEntry], error) {
	v := url.Values{}
	for name, s := range map[string]string{"subject": q.Subject, "operation": q.Operation, "node": q.Node} {
		if s != "" {
			v.Set(name, s)
		}
	}
	return all[hubapi.AuditEntry](ctx, c, "/audit", v, q.Limit)
}

// OpenAPI returns the hub's description of its API.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/openapi.json", nil)
}

// LogOptions say which part of what was printed.
type LogOptions struct {
	Agent      bool // of the agent, not of a container
	App        string
	Container  string
	Previous   bool
	Follow     bool
	Since      time.Time     // by the node's clock, as the times of its lines
	Ago        time.Duration // in place of Since: before now, whatever the node's clock says
	Tail       int           // lines; 0: all, -1: none of the past
	Timestamps bool
}

func (o LogOptions) values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"app": o.App, "container": o.Container} {
		if s != "" {
			v.Set(name, s)
		}
	}
	for name, b := range map[string]bool{"agent": o.Agent, "previous": o.Previous, "follow": o.Follow, "timestamps": o.Timestamps} {
		if b {
			v.Set(name, strconv.FormatBool(b))
		}
	}
	setTime(v, "since", o.Since)
	if o.Since.IsZero() && o.Ago > 0 {
		v.Set("since", o.Ago.String())
	}
	if o.Tail != 0 {
		v.Set("tail", strconv.Itoa(o.Tail))
	}
	return v
}

// ExecOptions say what to run where.
type ExecOptions struct {
	App       string
	Container string // empty: the app's only one
	Command   []string
	TTY       bool
	Stdin     bool
	Rows      uint16
	Columns   uint16
}

func (o ExecOptions) values() url.Values {
	v := url.Values{"app": {o.App}, "command": o.Command}
	if o.Container != "" {
		v.Set("container", o.Container)
	}
	if o.TTY {
		v.Set("tty", "true")
		if o.Rows > 0 && o.Columns > 0 {
			v.Set("rows", strconv.Itoa(int(o.Rows)))
			v.Set("columns", strconv.Itoa(int(o.Columns)))
		}
	}
	if o.Stdin {
		v.Set("stdin", "true")
	}
	return v
}

// ParseTarget takes NODE[/APP[/CONTAINER]] apart.
func ParseTarget(s string) (node, app, container string, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) > 3 {
		return "", "", "", false
	}
	for _, p := range parts {
		if p == "" {
			return "", "", "", false
		}
	}
	parts = append(parts, "", "")
	return parts[0], parts[1], parts[2], true
}
