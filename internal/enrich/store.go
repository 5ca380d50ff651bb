//go:build linux

package enrich

import "container/list"

// store is a bounded map of things that live and die. When it is full it forgets
// what died first, and only when nothing dead is left what lived longest without
// being asked for. It is not safe for concurrent use.
type store[K comparable, V any] struct {
	limit   int
	items   map[K]*list.Element
	live    list.List // most recently used in front
	dead    list.List // latest death in front
	evicted func(K, V)
}

type stored[K comparable, V any] struct {
	key   K
	value V
	dead  bool
}

// newStore returns a store of at most limit items; evicted, if any, is told what
// left for whatever reason. A limit below 1 counts as 1.
func newStore[K comparable, V any](limit int, evicted func(K, V)) *store[K, V] {
	return &store[K, V]{limit: max(limit, 1), items: make(map[K]*list.Element), evicted: evicted}
}

func (s *store[K, V]) len() int {
	return len(s.items)
}

// room tells whether an item can be added without forgetting a living one.
func (s *store[K, V]) room() bool {
	return s.live.Len() < s.limit
}

// get returns the value under key and counts that as a use.
func (s *store[K, V]) get(key K) (V, bool) {
	element, ok := s.items[key]
	if !ok {
		var none V
		return none, false
	}
	item := element.Value.(*stored[K, V])
	if !item.dead {
		s.live.MoveToFront(element)
	}
	return item.value, true
}

// put adds a living item, or replaces the value and brings a dead one back.
func (s *store[K, V]) put(key K, value V) {
	if element, ok := s.items[key]; ok {
		item := element.Value.(*stored[K, V])
		item.value = value
		s.move(element, false)
		return
	}
	for len(s.items) >= s.limit {
		s.evict()
	}
	s.items[key] = s.live.PushFront(&stored[K, V]{key: key, value: value})
}

// bury declares the item dead; a second death changes nothing.
func (s *store[K, V]) bury(key K) {
	if element, ok := s.items[key]; ok && !element.Value.(*stored[K, V]).dead {
		s.move(element, true)
	}
}

func (s *store[K, V]) move(element *list.Element, dead bool) {
	item := element.Value.(*stored[K, V])
	s.listOf(item).Remove(element)
	item.dead = dead
	s.items[item.key] = s.listOf(item).PushFront(item)
}

func (s *store[K, V]) listOf(item *stored[K, V]) *list.List {
	if item.dead {
		return &s.dead
	}
	return &s.live
}

func (s *store[K, V]) evict() {
	if element := s.dead.Back(); element != nil {
		s.remove(element)
		return
	}
	s.remove(s.live.Back())
}

func (s *store[K, V]) remove(element *list.Element) {
	item := element.Value.(*stored[K, V])
	s.listOf(item).Remove(element)
	delete(s.items, item.key)
	if s.evicted != nil {
		s.evicted(item.key, item.value)
	}
}

// drop forgets the item.
func (s *store[K, V]) drop(key K) {
	if element, ok := s.items[key]; ok {
		s.remove(element)
	}
}

// firstDead returns what has been dead for longest.
func (s *store[K, V]) firstDead() (K, V, bool) {
	element := s.dead.Back()
	if element == nil {
		var key K
		var value V
		return key, value, false
	}
	item := element.Value.(*stored[K, V])
	return item.key, item.value, true
}

// eachLive calls do with every living item; do may bury what it gets.
func (s *store[K, V]) eachLive(do func(K, V)) {
	for element := s.live.Front(); element != nil; {
		next := element.Next()
		item := element.Value.(*stored[K, V])
		do(item.key, item.value)
		element = next
	}
}
