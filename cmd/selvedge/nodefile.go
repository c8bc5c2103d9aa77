package main

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/literal"

	"selvedge/schema/fleet"
)

// nodeEntry is a node that is to be written into the repo.
type nodeEntry struct {
	name, workspace      string
	publicKey, recipient string
	guide                string
	labels               map[string]string
	defaults             *fleet.NodeDefaults
	awaited              bool // it is in the repo already, all but its identity
	prefix               string
	maxNodes             int // under that prefix, in the guide's scope; 0: any number, or its place is kept in the repo
}

// nodeFiles are where a node's file may be. The second is for one that awaits its key in the
// first, where people put it of themselves; no name of a node has a dot.
func nodeFiles(workspace, name string) []string {
	return []string{path.Join(workspace, "node-"+name+".cue"), path.Join(workspace, "node-"+name+".identity.cue")}
}

// file is where the node is written, in a tree.
func (e *nodeEntry) file(tree fs.FS) string {
	files := nodeFiles(e.workspace, e.name)
	if _, err := fs.Stat(tree, files[0]); err == nil && e.awaited {
		return files[1]
	}
	return files[0]
}

// source is the node's file, in the style of the repo.
func (e *nodeEntry) source() ([]byte, error) {
	var b strings.Builder
	how := "Approved by its file."
	if e.guide != "" {
		how = "Joined by guide " + literal.String.Quote(e.guide) + "."
	}
	fmt.Fprintf(&b, "package fleet\n\n// %s\nnode: %s: {\n", how, literal.String.Quote(e.name))
	if len(e.labels) > 0 {
		var fields []string
		for _, k := range slices.Sorted(maps.Keys(e.labels)) {
			fields = append(fields, field(k, literal.String.Quote(e.labels[k])))
		}
		fmt.Fprintf(&b, "labels: {%s}\n", strings.Join(fields, ", "))
	}
	fmt.Fprintf(&b, "identity: {\npublicKey: %s\n", literal.String.Quote(e.publicKey))
	if e.recipient != "" {
		fmt.Fprintf(&b, "recipient: %s\n", literal.String.Quote(e.recipient))
	}
	b.WriteString("}\n")
	if d := e.defaults; d != nil {
		if c := d.Capacity; c != nil {
			var fields []string
			if c.CPU != 0 {
				fields = append(fields, field("cpu", strconv.FormatFloat(c.CPU, 'f', -1, 64)))
			}
			if c.Memory != "" {
				fields = append(fields, field("memory", literal.String.Quote(c.Memory)))
			}
			fmt.Fprintf(&b, "capacity: {%s}\n", strings.Join(fields, ", "))
		}
		if !d.Schedulable {
			b.WriteString("schedulable: false\n")
		}
		var granted []string
		for _, r := range []struct {
			ok   bool
			name string
		}{{d.Remote.Logs, "logs"}, {d.Remote.Restart, "restart"}, {d.Remote.Exec, "exec"}, {d.Remote.Write, "write"}} {
			if r.ok {
				granted = append(granted, field(r.name, "true"))
			}
		}
		if len(granted) > 0 {
			fmt.Fprintf(&b, "remote: {%s}\n", strings.Join(granted, ", "))
		}
	}
	b.WriteString("}\n")
	return format.Source([]byte(b.String()))
}

var bareRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`)

func field(name, value string) string {
	if !bareRE.MatchString(name) {
		name = literal.String.Quote(name)
	}
	return name + ": " + value
}
