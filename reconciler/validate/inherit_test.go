package validate

import (
	"strings"
	"testing"

	"selvedge/schema/fleet"
)

const inherited = `package fleet

app: agent: {
	params: site: string
	placement: selector: role: "gateway"
	container: agent: {
		image: "` + image + `"
		resources: {cpu: 0.5, memory: "64MiB"}
		env: SITE: params.site
	}
}
policy: "no-host-network": {
	description: "containers have a network of their own; remove network: host"
	target: "app"
	#rule: {container?: [string]: {network: !="host", ...}, ...}
}
endpoint: mes: rest: url: "https://mes.example/"
roleBinding: admins: {role: "admin", subjects: ["user:ana"]}
`

const params = "package fleet\n\napp: agent: params: site: \"a\"\n"

func TestInherited(t *testing.T) {
	v := validator(t, Config{})
	b := map[string]string{otherDir + "/p.cue": "-"}
	base := func(over map[string]string) map[string]string {
		files := map[string]string{"folders/plant-a/apps.cue": inherited, wsDir + "/params.cue": params}
		for p, s := range over {
			files[p] = s
		}
		for p, s := range b {
			files[p] = s
		}
		return with(files)
	}
	t.Run("params", func(t *testing.T) {
		f, repo := check(t, v, repoDir(t, base(nil)))
		s := f.Workspaces[wsDir]
		if s.Unit == nil {
			t.Fatal(all(f, repo))
		}
		if got := s.Unit.App["agent"].Container["agent"].Env["SITE"]; got != "a" {
			t.Errorf("SITE is %q", got)
		}
		if o := s.Entities["app/agent"]; o.Scope != "folders/plant-a" || o.String() != "folders/plant-a/apps.cue:3:6" {
			t.Errorf("origin %+v", o)
		}
	})
	for _, c := range []struct {
		name, file, text, want string
	}{
		{"explicit", wsDir + "/x.cue", "app: agent: container: agent: user: \"root\"", wsDir + "/x.cue:3:6: app \"agent\": inherited from folders/plant-a and sealed: nothing of it but params may be set here (container.agent.user differs)"},
		{"undeclared param", wsDir + "/x.cue", "app: agent: params: sit: \"b\"", wsDir + "/x.cue:3:21: app \"agent\": params: \"sit\" is not declared in folders/plant-a; did you mean \"site\"?"},
		{"param once more", wsDir + "/x.cue", "app: agent: params: {\"site\": \"a\"}", "accepted"},
		{"pattern", wsDir + "/x.cue", "app: [string]: container: [string]: privileged: true", "app \"agent\": inherited from folders/plant-a and sealed"},
		{"comprehension", wsDir + "/x.cue", "if true {app: agent: container: agent: readOnly: true}", "app \"agent\": inherited from folders/plant-a and sealed"},
		{"nested folder", "folders/plant-a/more.cue", "app: [string]: container: [string]: readOnly: true", "accepted"}, // the same directory
		{"endpoint", wsDir + "/x.cue", "endpoint: mes: rest: secret: \"s\"", "endpoint \"mes\": inherited from folders/plant-a and sealed: nothing of it may be set here (rest.secret differs)"},
		{"platform", wsDir + "/x.cue", "platform: engine: 2", "platform: inherited from platform.cue and sealed: nothing of it may be set here (engine differs); change it there"},
		{"redundant", wsDir + "/x.cue", "app: agent: container: agent: network: \"bridge\"", "accepted"},
		{"own helper", wsDir + "/x.cue", "_mine: {a: 1}\nendpoint: other: rest: url: \"https://x.example/\"", "accepted"},
		{"folder's policy", wsDir + "/x.cue", "app: web: container: web: network: \"host\"", "app \"web\": container.web.network: against policy \"no-host-network\": containers have a network of their own; remove network: host"},
		{"policy on overrides", wsDir + "/x.cue", "app: web: override: [{nodes: [\"gw-1\"], container: web: network: \"host\"}]", wsDir + "/x.cue:3:11: app \"web\": container.web.network: against policy \"no-host-network\""},
		{"override elsewhere", wsDir + "/x.cue", "app: web: override: [{nodes: [\"gw-7\"], container: web: network: \"host\"}]", "accepted"},
		{"override of nothing", wsDir + "/x.cue", "app: web: override: [{nodes: [\"gw-1\"], container: wbe: network: \"host\"}]", "app \"web\": override.0: unknown container \"wbe\"; the app has web"},
		{"merged schema", wsDir + "/x.cue", "app: web: override: [{nodes: [\"gw-1\"], container: web: port: p: host: 5}]", "app \"web\": with its overrides merged in, container.web.port.p"},
		{"policy on nodes", wsDir + "/x.cue", "policy: n: {description: \"nodes need a line; label it\", target: \"node\", #rule: {labels: {line!: string, ...}, ...}}", "node \"gw-1\": labels.line: against policy \"n\": nodes need a line; label it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, repo := check(t, v, repoDir(t, base(map[string]string{c.file: "package fleet\n\n" + c.text + "\n"})))
			got := all(f, repo)
			t.Log(got)
			if c.want == "accepted" {
				if f.Workspaces[wsDir].Unit == nil {
					t.Error("refused")
				}
			} else if !strings.Contains(got, c.want) || f.Workspaces[wsDir].Unit != nil {
				t.Errorf("want %s", c.want)
			}
		})
	}
	t.Run("deeper folder", func(t *testing.T) {
		deep := "folders/plant-a/hall/line-9"
		files := base(map[string]string{
			"folders/plant-a/hall/hall.cue": "package fleet\n\napp: [string]: container: [string]: privileged: true\n",
			deep + "/workspace.cue":         "package fleet\n\nworkspace: title: \"Deep\"\n" + strings.TrimPrefix(params, "package fleet\n"),
		})
		f, repo := check(t, v, repoDir(t, files))
		if got := all(f, repo); !strings.Contains(got, "folders/plant-a/hall/hall.cue:3:6: app \"agent\": inherited from folders/plant-a and sealed") {
			t.Error(got)
		}
		var _ *fleet.Unit = f.Workspaces[wsDir].Unit
		if f.Workspaces[wsDir].Unit == nil {
			t.Error("a neighbour is refused too")
		}
	})
}
