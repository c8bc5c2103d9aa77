// Package show prints what others wrote so that a terminal obeys nothing of it.
//
// Names, messages and logs come from nodes and containers, which nobody has to trust. In
// tables control characters are made visible; of logs the colours are kept, and what moves
// the cursor, renames windows or asks the terminal questions is left out. It also aligns
// tables, and writes values as JSON and YAML, which are for programs and keep every
// character, those that a terminal acts on as escapes.
package show
