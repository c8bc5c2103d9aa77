package resolve

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// workspace is what is known of one workspace by itself.
type workspace struct {
	path      string
	id        string
	src       *fleet.Source // while it is resolved; what is remembered does not hold its values
	evaluated bool

	refused  bool
	problems []fleet.Problem
	declared []declaredNode      // all nodes
	nodes    map[string]Rendered // with an identity
	loose    []loose
}

// declaredNode is a node by its name, and the key if it has an identity.
type declaredNode struct {
	node, key string
	keyed     bool
}

// loose is a node that an inherited entity names and that this workspace does not
// have: another one below the same folder may.
type loose struct {
	scope, kind, name, field, node string
}

// render resolves one workspace by itself.
func render(cfg Config, path string, src *fleet.Source) *workspace {
	w := &workspace{path: path, id: src.ID, src: src, evaluated: src.Unit != nil}
	if src.Unit == nil {
		w.refused = true
		return w
	}
	w.declared = make([]declaredNode, 0, len(src.Unit.Node))
	for name, n := range src.Unit.Node {
		d := declaredNode{node: name}
		if n.Identity != nil {
			d.key, d.keyed = n.Identity.PublicKey, true
		}
		w.declared = append(w.declared, d)
	}
	rd := &renderer{workspace: w, cfg: cfg, unit: src.Unit, findings: map[finding]*seen{}}
	rd.run()
	w.problems = rd.said()
	w.refused = slices.ContainsFunc(w.problems, func(p fleet.Problem) bool { return p.Severity == fleet.Error })
	if w.refused {
		w.nodes = nil
	}
	return w
}

// why returns the first error that this workspace has by itself.
func (w *workspace) why() string {
	if text := firstError(w.problems); text != "" || w.src.Unit != nil {
		return text
	}
	if text := firstError(w.src.Problems); text != "" {
		return text
	}
	return w.path + ": refused"
}

// origin returns where an entity was declared; at least the workspace is known.
func (w *workspace) origin(kind, name string) fleet.Origin {
	for _, key := range []string{kind + "/" + name, kind} { // platform and workspace have no name
		if o, ok := w.src.Entities[key]; ok {
			return o
		}
	}
	if kind == "platform" { // it is nowhere else, and one mistake for all workspaces
		return fleet.Origin{Position: fleet.Position{File: "platform.cue"}}
	}
	return fleet.Origin{Position: fleet.Position{File: w.path}, Scope: w.path}
}

// inherited reports whether an entity comes from a directory above.
func (w *workspace) inherited(kind, name string) bool { return w.origin(kind, name).Scope != w.path }

func (w *workspace) problem(s fleet.Severity, kind, name, message string) fleet.Problem {
	return fleet.Problem{Severity: s, Workspace: w.path, Position: w.origin(kind, name).Position, Kind: kind, Name: name, Message: message}
}

// renderer holds what is needed while a workspace is rendered.
type renderer struct {
	*workspace
	cfg      Config
	unit     *fleet.Unit
	engine   engine
	findings map[finding]*seen
	unsaid   int // findings beyond maxFindings
	apps     []*app
	combos   map[string]*combo
}

// app is one app of the workspace with its variants: what overrides make of it.
type app struct {
	name     string
	fleet    fleet.App
	variants map[string]*variant // by merge key; nil value: it is wrong
	placed   bool
}

// combo is a set of variants that share a node.
type combo struct {
	variants []*variant
	apps     [][]byte // nil if an app differs from node to node
	names    []string // of the apps
	images   []string
	milliCPU int64
	memory   int64
	clashes  []clash
}

func (r *renderer) run() {
	version := r.unit.Platform.Engine
	var ok bool
	if r.engine, ok = engines[version]; !ok {
		r.errorf("platform", "", "", "engine %d is not one of this program, which knows 1 to %d; upgrade it before raising platform.engine", version, nodestate.Engine)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.unit.App)) {
		r.apps = append(r.apps, &app{name: name, fleet: r.unit.App[name], variants: map[string]*variant{}})
	}
	r.combos = map[string]*combo{}
	r.nodes = make(map[string]Rendered, len(r.unit.Node))
	var total int64
	var buf []byte
	var vs []*variant
	var id []byte
	for _, name := range slices.Sorted(maps.Keys(r.unit.Node)) {
		n := r.unit.Node[name]
		vs, id = vs[:0], id[:0]
		for _, a := range r.apps {
			if !a.fleet.On(name, n) {
				continue
			}
			a.placed = true
			v := r.variant(a, name, n)
			if v == nil {
				continue // said; the workspace is refused
			}
			vs = append(vs, v)
			id = append(append(append(id, a.name...), ' '), v.key...)
			id = append(id, ' ')
		}
		co := r.combos[string(id)]
		if co == nil {
			co = newCombo(vs)
			r.combos[string(id)] = co
		}
		r.checkPorts(co, name)
		r.checkCapacity(co, name, n)
		apps := r.appsOn(co, name, n)
		head := &nodestate.State{
			APIVersion: nodestate.APIVersion, Engine: version, Node: name, Workspace: r.path, Remote: nodestate.Remote(n.Remote),
		}
		if n.Identity != nil {
			head.Identity.PublicKey = n.Identity.PublicKey
		}
		buf = head.Join(buf[:0], apps)
		if total += int64(len(buf)); total > r.cfg.MaxWorkspaceBytes {
			r.errorf("workspace", "", "", "its states have more than %d bytes together; move large config files into images, or split the workspace", r.cfg.MaxWorkspaceBytes)
			break
		}
		if len(buf) > nodestate.MaxStateSize {
			r.errorf("node", name, "", "its state has %d bytes, and a node takes at most %d; move large config files into images, or run fewer apps on it", len(buf), nodestate.MaxStateSize)
			continue
		}
		if n.Identity == nil {
			continue // all was checked, so that its approval is no surprise
		}
		if err := head.CheckHeader(); err != nil {
			r.errorf("node", name, "", "%v", err)
			continue
		}
		if !nkeys.IsValidPublicUserKey(n.Identity.PublicKey) { // its checksum: nobody has such a key
			r.errorf("node", name, "", "identity.publicKey: %q is mistyped or cut; copy it again from what 'selvedge-edge init' prints", n.Identity.PublicKey)
			continue
		}
		r.nodes[name] = Rendered{Node: name, Workspace: r.path, Digest: nodestate.Digest(buf), Apps: co.names, Images: co.images, head: head, apps: apps}
	}
	if len(r.apps) > nodestate.MaxApps {
		r.errorf("workspace", "", "", "%d apps; at most %d are allowed", len(r.apps), nodestate.MaxApps)
	}
	r.checkNames()
	for _, a := range r.apps {
		r.idle(a)
	}
	r.checkDevices()
}

func newCombo(vs []*variant) *combo {
	co := &combo{variants: slices.Clone(vs)}
	co.clashes = clashes(vs)
	static := true
	for _, v := range vs {
		co.names = append(co.names, v.app.Name)
		for _, c := range v.app.Containers {
			co.images = append(co.images, c.Image)
		}
		static = static && v.static()
		co.milliCPU += v.milliCPU
		co.memory += v.memory
	}
	slices.Sort(co.names)
	slices.Sort(co.images)
	co.images = slices.Compact(co.images)
	if static {
		for _, v := range vs {
			co.apps = append(co.apps, v.bytes)
		}
	}
	return co
}

// strays reports whether an override changes a container that the app does not have.
func (a *app) strays() bool {
	for _, o := range a.fleet.Override {
		for c := range o.Container {
			if _, ok := a.fleet.Container[c]; !ok {
				return true
			}
		}
	}
	return false
}

// variant returns an app as it is on a node, or nil if that is wrong.
func (r *renderer) variant(a *app, node string, n fleet.Node) *variant {
	key := a.fleet.MergeKey(node, n)
	v, ok := a.variants[key]
	if ok {
		return v
	}
	if a.strays() {
		a.variants[key] = nil // checkNames says it
		return nil
	}
	merged, _, err := a.fleet.Merged(node, n)
	if err == nil {
		err = sane(&merged)
	}
	if err == nil {
		v, err = r.engine.app(a.name, key, &merged, r.unit.Config)
	}
	if err != nil {
		r.errorf("app", a.name, node, "%v", err)
	}
	a.variants[key] = v
	return v
}

// appsOn returns the canonical apps of a combination on one node.
func (r *renderer) appsOn(co *combo, name string, n fleet.Node) [][]byte {
	if co.apps != nil {
		return co.apps
	}
	var out [][]byte
	for _, v := range co.variants {
		b, err := v.on(fields{name, r.path, n.Labels})
		if err != nil {
			r.errorf("app", v.app.Name, name, "%v", err)
			continue
		}
		out = append(out, b)
	}
	return out
}

// maxFindings bounds what is noted of one workspace; Config.MaxProblems are said.
const maxFindings = 10000

// finding is one thing to say; nodes that it concerns are collected.
type finding struct {
	severity            fleet.Severity
	kind, name, message string
}

type seen struct {
	nodes []string // the first few, sorted as nodes are
	more  int
}

// errorf notes an error of an entity, on a node unless that is empty.
func (r *renderer) errorf(kind, name, node, format string, args ...any) {
	r.note(finding{fleet.Error, kind, name, fmt.Sprintf(format, args...)}, node)
}

// warnf notes what refuses nothing.
func (r *renderer) warnf(kind, name, format string, args ...any) {
	r.note(finding{fleet.Warning, kind, name, fmt.Sprintf(format, args...)}, "")
}

func (r *renderer) note(f finding, node string) {
	s := r.findings[f]
	if s == nil {
		if len(r.findings) >= maxFindings {
			r.unsaid++
			return
		}
		s = &seen{}
		r.findings[f] = s
	}
	switch {
	case node == "" || slices.Contains(s.nodes, node):
	case len(s.nodes) < 3:
		s.nodes = append(s.nodes, node)
	default:
		s.more++
	}
}

// said returns the findings as problems, sorted and bounded.
func (r *renderer) said() []fleet.Problem {
	out := make([]fleet.Problem, 0, len(r.findings))
	for f, s := range r.findings {
		message := f.message
		if len(s.nodes) > 0 {
			on := strings.Join(s.nodes, ", ")
			if s.more > 0 {
				on += fmt.Sprintf(" and %d more", s.more)
			}
			message += " (on " + on + ")"
		}
		out = append(out, r.problem(f.severity, f.kind, f.name, message))
	}
	out = fleet.SortProblems(out)
	if most := r.cfg.MaxProblems; len(out) > most {
		left := len(out) - most + r.unsaid
		out = append(out[:most], r.problem(fleet.Error, "workspace", "", fmt.Sprintf("%d more problems; mend these first", left)))
	}
	return out
}
