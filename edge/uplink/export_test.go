package uplink

import (
	"context"
	"net"
	"net/url"
	"time"
)

func SetIdle(c *Config, d time.Duration) { c.idle = d }

func SetProxy(c *Config, proxy *url.URL) {
	c.proxy = func(*url.URL) (*url.URL, error) { return proxy, nil }
}

// NewDialer returns what dials for the library.
func NewDialer(ctx context.Context) interface {
	Dial(network, address string) (net.Conn, error)
} {
	return &dialer{ctx: ctx, proxy: func(*url.URL) (*url.URL, error) { return nil, nil }}
}

var Encode = encode
