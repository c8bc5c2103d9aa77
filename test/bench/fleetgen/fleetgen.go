// Package fleetgen writes config repos of N nodes.
//
// In: a folder and a number. Out: a whole config repo with the schema vendored, in
// which 100 nodes and 100 devices make a workspace, as embedded YAML, and ten workspaces
// a plant; ten apps and ten device models of 20 registers come from the platform. Each
// node runs two of the apps and has a key of its own.
//
// Guarantees: the same number gives the same bytes; plain `cue vet -c ./folders/...`
// accepts the result. It is for benchmarks and checks nothing.
package fleetgen

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nats-io/nkeys"

	"selvedge/schema"
)

const (
	perWorkspace = 100
	perPlant     = 10 // workspaces
	apps         = 10
	roles        = 5 // each is what two apps select
	models       = 10
	registers    = 20
)

// Write writes a repo of n nodes into dir, which it makes.
func Write(dir string, n int) error {
	if n < 1 || n > 1_000_000 {
		return fmt.Errorf("write a repo of %d nodes: from 1 to 1,000,000 can be made", n)
	}
	files := schema.Vendor()
	files["cue.mod/module.cue"] = []byte("module: \"acme.example/fleet@v0\"\nlanguage: version: \"" + schema.LanguageVersion + "\"\n")
	files["platform.cue"] = []byte(platform())
	for first := 0; first < n; first += perWorkspace {
		at := Workspace(first)
		last := min(first+perWorkspace, n)
		nodes, err := nodes(first, last)
		if err != nil {
			return err
		}
		files[path.Dir(at)+"/folder.cue"] = fmt.Appendf(nil, "package fleet\n\nfolder: title: %q\n", path.Base(path.Dir(at)))
		files[at+"/workspace.cue"] = fmt.Appendf(nil, workspace, path.Base(at))
		files[at+"/nodes.yaml"] = nodes
		files[at+"/devices.yaml"] = devices(first, last)
	}
	for name, data := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Workspace is the folder of the workspace that holds node i, from the root of the repo.
func Workspace(i int) string {
	w := i / perWorkspace
	return fmt.Sprintf("folders/plant-%03d/line-%d", w/perPlant, w%perPlant)
}

// Node is the name of node i.
func Node(i int) string { return fmt.Sprintf("gw-%06d", i) }

// Key is the key pair of node i: who runs the node needs its private half.
func Key(i int) (nkeys.KeyPair, error) {
	seed := sha256.Sum256([]byte("benchmark " + Node(i)))
	return nkeys.FromRawSeed(nkeys.PrefixByteUser, seed[:])
}

var edited = regexp.MustCompile(`edit: "[^"]*"`)

// Edit changes one node of a repo that Write made: its label "edit", and with it the
// environment of its apps. It returns the file that it wrote, from the root of the repo.
func Edit(dir string, i int, label string) (string, error) {
	name := path.Join(Workspace(i), "nodes.yaml")
	file := filepath.Join(dir, filepath.FromSlash(name))
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	start := bytes.Index(data, []byte(Node(i)+":\n"))
	if start < 0 {
		return "", fmt.Errorf("edit %s: %s has no such node", Node(i), name)
	}
	at := edited.FindIndex(data[start:])
	if at == nil {
		return "", fmt.Errorf("edit %s: %s was changed by hand", Node(i), name)
	}
	out := append(data[:start+at[0]:start+at[0]], fmt.Sprintf("edit: %q", label)...)
	return name, os.WriteFile(file, append(out, data[start+at[1]:]...), 0o644)
}

const workspace = `@extern(embed)

package fleet

workspace: title: %q

node:   _ @embed(file=nodes.yaml)
device: _ @embed(file=devices.yaml)
`

func nodes(first, last int) ([]byte, error) {
	var b bytes.Buffer
	for i := first; i < last; i++ {
		pair, err := Key(i)
		if err != nil {
			return nil, err
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:\n  labels: {role: r%d, line: \"%d\", rack: \"%02d\", edit: \"0\"}\n", Node(i), i%roles, i%3, i%perWorkspace/8)
		fmt.Fprintf(&b, "  identity: {publicKey: %s}\n  capacity: {cpu: 4, memory: 4GiB}\n", public)
	}
	return b.Bytes(), nil
}

func devices(first, last int) []byte {
	var b bytes.Buffer
	for i := first; i < last; i++ {
		fmt.Fprintf(&b, "plc-%06d:\n  model: model-%d\n  node: %s\n", i, i%models, Node(i))
		fmt.Fprintf(&b, "  modbus: {tcp: \"10.%d.%d.%d:502\", unit: 3}\n  poll: 1s\n  desired: {p1: 4}\n", i/62_500%250, i/250%250, i%250+1)
	}
	return b.Bytes()
}

func platform() string {
	var b strings.Builder
	b.WriteString(`@experiment(explicitopen)

package fleet

import "selvedge.dev/schema/v1"

v1.#Repo

platform: name: "Acme"

node: [string]: labels: company: "acme"

`)
	for a := range apps {
		fmt.Fprintf(&b, `app: "app-%d": {
	placement: selector: role: "r%d"
	container: web: {
		image: "registry.example/app-%d@sha256:%x"
		port: http: {container: 8080, host: %d}
		resources: {cpu: 0.5, memory: "64MiB"}
		env: {
			LINE: "{{node.labels.line}}"
			EDIT: "{{node.labels.edit}}"
		}
		probe: http: {port: 8080, path: "/healthz"}
	}
}
`, a, a%roles, a, sha256.Sum256(fmt.Append(nil, a)), 18000+a)
	}
	for m := range models {
		fmt.Fprintf(&b, "deviceModel: \"model-%d\": property: {\n", m)
		for r := range registers {
			access := "r"
			if r == 1 {
				access = "rw"
			}
			fmt.Fprintf(&b, "\tp%d: {type: \"int16\", access: %q, unit: \"Cel\", modbus: {table: \"holding\", address: %d, scale: 0.1}}\n", r, access, m*100+r)
		}
		b.WriteString("}\n")
	}
	return b.String()
}
