package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"selvedge/schema"
)

const head = `# The config repo: all kinds and fields

<!-- Made by go generate ./schema/... from schema/v1. Change the comments there. -->

Everything in a config repo is a map by name: ` + "`app: web: {…}`" + ` declares the app *web*. Below,
NAME stands for a key of a map that you choose, and [] for each element of a list.

**Acts** says what becomes of a field today. *yes*: the engine does what is described. *not yet*: it is
checked and kept, nothing acts on it, and ` + "`selvedge validate`" + ` warns. *refused*: nothing acts on it and
to ignore it would be dangerous, so ` + "`selvedge validate`" + ` refuses it.

A field with a default always has a value. One that is neither required nor has a default may be left out.

`

// reference renders the page for people.
func reference(files map[string][]byte) ([]byte, error) {
	defs, err := parse(files)
	if err != nil {
		return nil, err
	}
	repo, ok := defs["#Repo"]
	if !ok {
		return nil, fmt.Errorf("the schema has no #Repo")
	}
	var b bytes.Buffer
	b.WriteString(head)
	b.WriteString("| kind | | acts |\n|---|---|---|\n")
	for _, kind := range repo.fields {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", kind.name, strings.ToLower(kind.name), cell(kind.doc), acts(kind.name))
	}
	for _, kind := range repo.fields {
		path := kind.name + kind.typ.via
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", kind.name, trim(defs[kind.typ.elem]))
		if s := schema.LevelAt(kind.name); s.Level != schema.Acts {
			fmt.Fprintf(&b, "Not supported yet: %s.\n\n", s.Why)
		}
		table(&b, defs, defs[kind.typ.elem], path)
		if notes := notes(kind.name); notes != "" {
			b.WriteString("\n" + notes)
		}
	}
	fmt.Fprintf(&b, "\n## What an override may change\n\n%s\n\n", trim(defs[patch]))
	table(&b, defs, defs[patch], "app.*.override.*.container.*")
	b.WriteString("\n## Values\n\nWhat the types above stand for.\n\n| type | | as CUE |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if d := defs[name]; !isStruct(d.expr) {
			fmt.Fprintf(&b, "| %s | %s | `%s` |\n", strings.TrimPrefix(name, "#"), cell(trim(d)), escape(source(d.expr)))
		}
	}
	return b.Bytes(), nil
}

// patch is shown once, not under each override.
const patch = "#ContainerPatch"

func table(b *bytes.Buffer, defs schemaFiles, def *definition, path string) {
	b.WriteString("| field | type | default | | acts |\n|---|---|---|---|---|\n")
	rows(b, defs, def, path, "")
}

// rows writes the fields of a struct and of the structs below it; at is the path for
// people, path that of the support table.
func rows(b *bytes.Buffer, defs schemaFiles, def *definition, path, at string) {
	for _, f := range def.fields {
		p, shown := path+"."+f.name, at+f.name
		dflt := "`" + f.def + "`"
		switch {
		case f.required:
			dflt = "required"
		case f.def == "":
			dflt = ""
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", shown, escape(f.typ.text), escape(dflt), cell(f.doc), acts(p))
		if f.typ.elem != "" && f.typ.elem != patch {
			below := strings.ReplaceAll(f.typ.via, ".*", ".NAME")
			if strings.HasPrefix(f.typ.text, "list") {
				below = "[]"
			}
			rows(b, defs, defs[f.typ.elem], p+f.typ.via, shown+below+".")
		}
	}
}

func acts(path string) string {
	switch schema.LevelAt(path).Level {
	case schema.Acts:
		return "yes"
	case schema.Warn:
		return "not yet"
	}
	return "refused"
}

// notes lists why parts of a kind are not supported yet.
func notes(kind string) string {
	var b strings.Builder
	for _, s := range schema.Supported() {
		if rest, ok := strings.CutPrefix(s.Path, kind+".*."); ok {
			fmt.Fprintf(&b, "- `%s`: not supported yet: %s.\n", rest, s.Why)
		}
	}
	return b.String()
}

// trim drops what a definition's comment begins with: "#Name", "#Name is".
func trim(d *definition) string {
	s := strings.TrimPrefix(strings.TrimPrefix(d.doc, d.name+" "), "is ")
	return strings.ToUpper(s[:1]) + s[1:]
}

func cell(s string) string { return escape(strings.Join(strings.Fields(s), " ")) }

func escape(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
