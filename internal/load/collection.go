package load

import (
	"reflect"
	"strconv"

	"github.com/cilium/ebpf"
)

// Collection is a set of loaded programs and maps by name. Unlike ebpf.Collection
// it maps no global variable into this process's memory: such a mapping keeps its
// map in the kernel until the garbage collector finds it, long after Close.
type Collection struct {
	Programs map[string]*ebpf.Program
	Maps     map[string]*ebpf.Map
}

// Close releases all of it. Programs that are attached stay until their link is
// closed, too.
func (c *Collection) Close() {
	for _, program := range c.Programs {
		// A descriptor that is closed twice is all that can be wrong here.
		_ = program.Close()
	}
	for _, m := range c.Maps {
		_ = m.Close()
	}
}

// loadCollection loads the spec's programs and maps and not its variables:
// LoadAndAssign loads just what the fields of a struct ask for, so the struct is
// made from the spec.
func loadCollection(spec *ebpf.CollectionSpec, options *ebpf.CollectionOptions) (*Collection, error) {
	var fields []reflect.StructField
	var names []string
	want := func(name string, value any) {
		fields = append(fields, reflect.StructField{
			Name: "Field" + strconv.Itoa(len(fields)),
			Type: reflect.TypeOf(value),
			Tag:  reflect.StructTag(`ebpf:"` + name + `"`),
		})
		names = append(names, name)
	}
	for name := range spec.Programs {
		want(name, (*ebpf.Program)(nil))
	}
	for name := range spec.Maps {
		want(name, (*ebpf.Map)(nil))
	}
	objects := reflect.New(reflect.StructOf(fields))
	if err := spec.LoadAndAssign(objects.Interface(), options); err != nil {
		return nil, err
	}
	c := &Collection{Programs: map[string]*ebpf.Program{}, Maps: map[string]*ebpf.Map{}}
	for i, name := range names {
		switch object := objects.Elem().Field(i).Interface().(type) {
		case *ebpf.Program:
			c.Programs[name] = object
		case *ebpf.Map:
			c.Maps[name] = object
		}
	}
	return c, nil
}
