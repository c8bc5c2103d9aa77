// Package store keeps what the node may run, so that a crash at any moment leaves a state that starts.
//
// In: verified states, root documents, the times of contact. Out: the states current (what
// the node runs or tries), pending (verified, not begun), last-good (healthy before), the floor,
// rejections, the hold, root documents. All of it is in one directory of mode 0700:
//
//	slots.0, slots.1   the slots by digest, floor and rejections, with a sequence number; written in turn
//	floor              the floor again, with what it grants, and how old slots may be: stored apart
//	states/<digest>    a signed manifest with this node's acceptance record, see verify.FromRecord
//	trust/<digest>     root documents
//	hold, retry        what people asked for with selvedge-edge hold and release
//	seen               the last time of contact
//	lock               held while a process has the store open
//
// Guarantees. Every transition is one atomic rename of a slots file: contents are
// written and synced before, unreferenced ones removed after. Everything is sealed by the
// node's key, so what was planted or altered without it is not started. The floor is the
// highest of all places that tell of it and never falls. Slots that are older than the floor
// file allows, as after restoring old files, are not believed. Of damaged files the next best is
// taken, which [Status].Problems says; nothing panics. A person who restores the whole directory
// cannot be told from one who never wrote to it: the registry's newest state then heals it.
//
// The clock decides nothing here. The package never touches the network, and starts nothing.
package store
