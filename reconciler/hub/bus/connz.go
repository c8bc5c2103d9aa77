package bus

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// connzPage is how many connections a server tells at once; pages overlap, because those that
// end in between move the rest.
const (
	connzPage    = 500
	connzOverlap = 50
)

// connz is a server's answer.
type connz struct {
	Server struct {
		ID string `json:"id"`
	} `json:"server"`
	Data struct {
		Total       int `json:"total"`
		Connections []struct {
			ID    uint64    `json:"cid"`
			Start time.Time `json:"start"`
			JWT   string    `json:"jwt"`
		} `json:"connections"`
	} `json:"data"`
}

func (p *presence) ask(offset int) []byte {
	data, _ := json.Marshal(map[string]any{"acc": p.b.keys.accountID, "auth": true, "sort": "cid", "limit": connzPage, "offset": offset})
	return data
}

// countAll compares what is known with what all servers tell. A connection is forgotten only
// after it was missing twice.
func (p *presence) countAll(ctx context.Context) {
	nc := p.b.sys()
	if nc == nil {
		return
	}
	first, err := p.ping(nc)
	if err != nil {
		if ctx.Err() == nil {
			p.b.log.Warn("count the connections of nodes", "error", err)
			time.AfterFunc(5*time.Second, p.again)
		}
		return
	}
	found := map[connID]bool{}
	partly := p.alive() // servers; half of a count, or none, forgets nothing
	for _, page := range first {
		delete(partly, page.Server.ID)
		p.heard(page.Server.ID) // its statistics come later: until then, too, it may be too busy for a count
	}
	for _, page := range first {
		for offset := 0; ; {
			for _, c := range page.Data.Connections {
				id := connID{page.Server.ID, c.ID}
				if n, ok := claimsOf(c.JWT); ok {
					found[id] = true
					n.start = c.Start
					p.add(id, n, false)
				}
			}
			offset += connzPage - connzOverlap
			if len(page.Data.Connections) < connzPage {
				break
			}
			m, err := askServer(ctx, nc, "$SYS.REQ.SERVER."+page.Server.ID+".CONNZ", p.ask(offset))
			var next connz
			if err == nil {
				err = json.Unmarshal(m.Data, &next)
			}
			if err != nil {
				partly[page.Server.ID] = true
				break
			}
			next.Server.ID = page.Server.ID
			page = next
		}
	}
	if len(partly) > 0 { // they are busy; or gone, which is noticed soon
		time.AfterFunc(5*time.Second, p.again)
	}
	p.forget(found, partly)
}

// alive are the servers that are heard.
func (p *presence) alive() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]bool{}
	for id := range p.silent {
		all[id] = true
	}
	return all
}

// forget removes what was missing for the second time, be it that its server is gone.
func (p *presence) forget(found map[connID]bool, partly map[string]bool) {
	p.mu.Lock()
	var gone []connID
	missing := false
	for id, c := range p.conns {
		if found[id] || partly[id.server] {
			c.missed = 0
		} else if c.missed++; c.missed > 1 {
			gone = append(gone, id)
		} else {
			missing = true
		}
	}
	p.mu.Unlock()
	for _, id := range gone {
		p.remove(id)
	}
	if missing {
		time.AfterFunc(2*time.Second, p.again)
	}
}

// ping asks all servers for the first page.
func (p *presence) ping(nc *nats.Conn) ([]connz, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.CONNZ", inbox, p.ask(0)); err != nil {
		return nil, err
	}
	var all []connz
	wait := 5 * time.Second
	for p.b.srv == nil || len(all) == 0 {
		m, err := sub.NextMsg(wait)
		if err != nil {
			break
		}
		var c connz
		if json.Unmarshal(m.Data, &c) == nil && c.Server.ID != "" {
			all = append(all, c)
			wait = time.Second // the others are not far
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no server answers")
	}
	return all, nil
}
