// Package cert holds the hub's certificate.
//
// Inputs: certificate files, read again when they change; or, without them, a directory and
// the names under which nodes dial. Then it makes on the first start an authority (ECDSA
// P-256, ten years, ca.pem) and under it a certificate (90 days, hub.pem), and renews that
// after two thirds of its life, when the names change, or when the clock jumps. The
// authority's certificate is sent along, so that whoever knows its Fingerprint, from a join
// line, can check all of it. ca.crt is a copy of it for people.
//
// Everything is valid from a day before it was made: clocks of nodes are off. Hubs that
// stand for one another share ca.pem, or get files.
package cert
