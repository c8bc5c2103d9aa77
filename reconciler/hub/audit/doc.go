// Package audit is an append-only file of what was done: one JSON object a line, each with
// the hash of the one before.
//
// In: entries. Out: lines, durable when Append returns, numbered from 1, each with the
// SHA-256 of the line before it (without the newline), so that a line that was changed, put
// in or taken out breaks the chain at that place. A full file is renamed to PATH.1, PATH.2, …
// (higher is newer), and the chain goes on in the next one.
//
// A crash can leave a part of a line at the end, of an entry that nobody was told was kept:
// Open moves it into a file of its own and notes that in the log. A file that somebody takes
// away, replaces or makes longer or shorter while the log is open is noticed before the next
// entry, which goes where the log belongs, behind a note of it. Who can write the file can
// also cut lines off its end while nobody has it open, or make the whole anew: that shows only
// against a Head kept elsewhere, which is why the hub logs it. The package takes no decision
// and hides nothing: who may read is for others to say.
package audit
