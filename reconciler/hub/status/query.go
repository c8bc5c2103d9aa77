package status

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// ErrQuery marks a query that makes no sense: a selector, an order or a continue token.
var ErrQuery = errors.New("invalid query")

// Query chooses nodes, and what is on them. The zero value chooses everything.
type Query struct {
	Node      string // that one only
	Workspace string
	Folder    string // workspaces there and below
	Labels    string // a selector as kubectl has it
	Status    []hubapi.Readiness
	App       string // nodes that should run it
	Search    string // part of a name or a label, in any case
	Condition string // a type that holds
	Limit     int    // 0 means 100; at most 1,000
	Continue  string // of the page before
	// Sort is name (the default), workspace, status (worst first), cpu, memory, restarts (most first) or
	// lastSeen (longest ago first); a minus in front turns it round.
	Sort string
	// Visible tells which workspaces may be seen; nil: all. It is asked with the store locked and must
	// not call it.
	Visible func(workspace string) bool
	// Initial makes Watch begin with all that match.
	Initial bool
	// After is the ID of an event: Watch tells those since, too, as far as the newest 1,000 go. One that
	// this store never gave is as good as none.
	After string
}

// EventQuery chooses events.
type EventQuery struct {
	Node, Workspace, Folder string
	App, Reason, Search     string
	Severity                string    // at least: info, warning or error
	Since                   time.Time // received at or after
	After                   string    // ID: what came later, oldest first; empty: newest first
	Limit                   int       // 0 means 100; at most 1,000
	Continue                string
	Visible                 func(workspace string) bool
}

func limitOf(n int) int {
	if n <= 0 {
		return 100
	}
	return min(n, 1000)
}

// remember asks a question about access once for each workspace.
func remember(visible func(string) bool) func(string) bool {
	if visible == nil {
		return func(string) bool { return true }
	}
	known := map[string]bool{}
	return func(w string) bool {
		v, ok := known[w]
		if !ok {
			v = visible(w)
			known[w] = v
		}
		return v
	}
}

// below reports whether a workspace is in a folder; "" is the platform.
func below(workspace, folder string) bool {
	if folder == "" {
		return true
	}
	folder = strings.TrimSuffix(folder, "/")
	return strings.HasPrefix(workspace, folder) && (len(workspace) == len(folder) || workspace[len(folder)] == '/')
}

// matcher is a checked query.
type matcher struct {
	q        Query
	search   string
	selector labels.Selector // nil: all
	visible  func(string) bool
	inScope  map[string]bool // workspaces, by what of the query is about them
}

func (q Query) matcher() (*matcher, error) {
	m := &matcher{q: q, search: strings.ToLower(q.Search), visible: remember(q.Visible), inScope: map[string]bool{}}
	if strings.TrimSpace(q.Labels) != "" {
		if len(q.Labels) > wire.MaxText {
			return nil, fmt.Errorf("%w: a selector of %d bytes", ErrQuery, len(q.Labels))
		}
		sel, err := labels.Parse(q.Labels)
		if err != nil {
			return nil, fmt.Errorf("%w: selector %q: %v; write it as kubectl does: site=munich,line!=2,role in (gateway,plc)", ErrQuery, text(q.Labels, 200), err)
		}
		m.selector = sel
	}
	for _, r := range q.Status {
		if !slices.Contains([]hubapi.Readiness{hubapi.Ready, hubapi.NotReady, hubapi.Unknown, hubapi.Waiting}, r) {
			return nil, fmt.Errorf("%w: status %q; it is Ready, NotReady, Unknown or Waiting", ErrQuery, text(string(r), 40))
		}
	}
	return m, nil
}

// scope reports whether a workspace may be seen and is asked for.
func (m *matcher) scope(workspace string) bool {
	in, ok := m.inScope[workspace]
	if !ok {
		in = (m.q.Workspace == "" || m.q.Workspace == workspace) && below(workspace, m.q.Folder) && m.visible(workspace)
		m.inScope[workspace] = in
	}
	return in
}

// node is everything but Search and App, which mean something else in other lists.
func (m *matcher) node(r *record) bool {
	q := &m.q
	return m.scope(r.want.Workspace) &&
		(q.Node == "" || q.Node == r.name) &&
		(len(q.Status) == 0 || slices.Contains(q.Status, r.ready)) &&
		(q.Condition == "" || has(r.conditions, q.Condition)) &&
		(m.selector == nil || m.selector.Matches(labels.Set(r.want.Labels)))
}

func (m *matcher) match(r *record) bool {
	return m.node(r) && (m.q.App == "" || slices.Contains(r.want.Apps, m.q.App)) && (m.search == "" || strings.Contains(r.hay, m.search))
}

// key is where something stands in an order: by its number or word, then by its name.
type key struct {
	Sort string  `json:"s,omitempty"` // of the list that it is a place in
	Num  float64 `json:"n,omitempty"`
	Word string  `json:"w,omitempty"`
	Name string  `json:"k"`
}

func compare(a, b key, reverse bool) int {
	c := cmp.Or(cmp.Compare(a.Num, b.Num), cmp.Compare(a.Word, b.Word))
	if reverse {
		c = -c
	}
	if c == 0 { // names go up in any order, unless they are the order
		if c = cmp.Compare(a.Name, b.Name); reverse && (a.Sort == "" || a.Sort == "name") {
			c = -c
		}
	}
	return c
}

func (k key) token() string {
	b, err := json.Marshal(k)
	if err != nil { // no number here is infinite
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func place(token, order string) (key, error) {
	var k key
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil || k.Sort != order {
		return k, fmt.Errorf("%w: the continue token is not of this list and order; begin without one", ErrQuery)
	}
	return k, nil
}

// row is something with its place.
type row[T any] struct {
	key
	of T
}

// page sorts rows and cuts a page out of them.
func page[T any](rows []row[T], q Query, order string, reverse, sorted bool) (items []T, cont string, err error) {
	if !sorted {
		slices.SortFunc(rows, func(a, b row[T]) int { return compare(a.key, b.key, reverse) })
	}
	from := 0
	if q.Continue != "" {
		k, err := place(q.Continue, order)
		if err != nil {
			return nil, "", err
		}
		k.Sort = strings.TrimPrefix(order, "-")
		var at bool
		if from, at = slices.BinarySearchFunc(rows, k, func(r row[T], k key) int { return compare(r.key, k, reverse) }); at {
			from++
		}
	}
	to := min(len(rows), from+limitOf(q.Limit))
	items = make([]T, 0, to-from)
	for _, r := range rows[from:to] {
		items = append(items, r.of)
	}
	if to < len(rows) && to > from {
		k := rows[to-1].key
		k.Sort = order
		cont = k.token()
	}
	return items, cont, nil
}

// worst orders states of nodes.
var worst = map[hubapi.Readiness]float64{hubapi.NotReady: 1, hubapi.Unknown: 2, hubapi.Waiting: 3, hubapi.Ready: 4}

// nodeKey returns where a node stands in an order.
func nodeKey(r *record, order string) (k key, ok bool) {
	k = key{Sort: order, Name: r.name}
	u := &wire.Usage{}
	if r.report != nil && r.report.Usage != nil {
		u = r.report.Usage
	}
	switch order {
	case "", "name":
	case "workspace":
		k.Word = r.want.Workspace
	case "status":
		k.Num = worst[r.ready]
	case "cpu":
		k.Num = -u.CPU
	case "memory":
		k.Num = -float64(u.Memory)
	case "restarts":
		k.Num = -float64(r.restarts)
	case "lastSeen":
		if !r.heard.IsZero() {
			k.Num = float64(r.heard.UnixMilli())
		}
	default:
		return k, false
	}
	return k, true
}

func badOrder(order, known string) error {
	return fmt.Errorf("%w: no order %q; there are %s, each with a minus in front to turn it round", ErrQuery, text(order, 40), known)
}

// Nodes lists nodes.
func (s *Store) Nodes(q Query) (hubapi.List[hubapi.Node], error) {
	out := hubapi.List[hubapi.Node]{}
	m, err := q.matcher()
	if err != nil {
		return out, err
	}
	order, reverse := strings.CutPrefix(q.Sort, "-")
	if _, ok := nodeKey(&record{}, order); !ok {
		return out, badOrder(order, "name, workspace, status, cpu, memory, restarts and lastSeen")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var rows []row[*record]
	for _, r := range s.order {
		if m.match(r) {
			k, _ := nodeKey(r, order)
			rows = append(rows, row[*record]{k, r})
		}
	}
	found, cont, err := page(rows, q, q.Sort, reverse, (order == "" || order == "name") && !reverse)
	if err != nil {
		return out, err
	}
	out.Total, out.Continue, out.Items = len(rows), cont, make([]hubapi.Node, 0, len(found))
	for _, r := range found {
		out.Items = append(out.Items, r.node())
	}
	return out, nil
}

// node is a record as people see it. The digest of the wanted state is left out: Git's is of
// the content, those of nodes are of the manifest.
func (r *record) node() hubapi.Node {
	n := hubapi.Node{Name: r.name, Workspace: r.want.Workspace, Labels: r.want.Labels, Status: r.ready, Why: r.why, Connected: r.connected,
		LastSeen: r.heard.UTC(), Wanted: wire.Ref{Generation: r.want.Generation, Commit: r.want.Commit},
		Apps: len(r.want.Apps), Healthy: r.healthy, Restarts: r.restarts, Conditions: r.conditions}
	if p := r.report; p != nil {
		n.Pulled, n.Applied, n.LastGood = p.State.Pulled, p.State.Current, p.State.LastGood
		n.Version, n.Usage = p.Agent.Version, p.Usage
	}
	return n
}

// Node tells all that is known of a node.
func (s *Store) Node(name string) (hubapi.NodeDetail, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.nodes[name]
	if r == nil {
		return hubapi.NodeDetail{}, false
	}
	d := hubapi.NodeDetail{Node: r.node(), PublicKey: r.want.PublicKey, Held: r.want.Held, Report: r.report}
	if skew, _ := r.skew(); skew.Abs() > time.Second {
		d.ClockSkew = skew.Round(time.Millisecond).String()
	}
	return d, true
}
