// Package testdata embeds the fixtures of the schema; package schematest loads them.
package testdata

import "embed"

// Files holds the fixtures, txtar archives all of them.
//
//go:embed *.txtar
var Files embed.FS
