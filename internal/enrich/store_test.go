//go:build linux

package enrich

import (
	"slices"
	"testing"
)

func TestStoreForgetsTheDeadFirst(t *testing.T) {
	var left []int
	s := newStore(3, func(key int, _ string) { left = append(left, key) })
	for key := range 3 {
		s.put(key, "")
	}
	s.bury(2)
	s.bury(2)
	s.bury(9)
	if key, _, ok := s.firstDead(); !ok || key != 2 || !s.room() {
		t.Errorf("first dead: %d, %v, room %v", key, ok, s.room())
	}
	s.put(3, "") // instead of 2, the only dead one
	s.get(0)
	s.put(4, "") // instead of 1: 0 was used
	if !slices.Equal(left, []int{2, 1}) || s.len() != 3 || s.room() {
		t.Errorf("left: %v, %d remain", left, s.len())
	}
	s.bury(0)
	s.put(0, "again")
	if _, _, ok := s.firstDead(); ok {
		t.Error("what was put again is still dead")
	}
	if value, ok := s.get(0); !ok || value != "again" {
		t.Errorf("got %q, %v", value, ok)
	}
	s.drop(0)
	s.drop(0)
	var live []int
	s.eachLive(func(key int, _ string) { live = append(live, key); s.bury(key) })
	if !slices.Equal(live, []int{4, 3}) || s.live.Len() != 0 || s.dead.Len() != 2 {
		t.Errorf("live: %v", live)
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := newStore[int, int](0, nil)
	for key := range 1000 {
		s.put(key, key)
		if key%3 == 0 {
			s.bury(key)
		}
		if s.len() != 1 || s.live.Len()+s.dead.Len() != 1 {
			t.Fatalf("%d items", s.len())
		}
	}
}
