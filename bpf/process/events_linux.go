package process

import (
	"bytes"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/capability"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/event"
	"otelcol-ebpf/internal/otlp"
)

// execRecord is a decoded process.exec. Its strings do not alias the ring.
type execRecord struct {
	*bpfExecEvent
	executable, directory, parent, script, interpreter string
	args                                               []string
}

func (r *execRecord) has(flag bpfExecFlag) bool { return r.Flags&flag != 0 }

// decodeExec decodes a record of kind EVENT_EXEC.
func decodeExec(record []byte, in *event.Interner) (execRecord, error) {
	fixed, tail, err := event.As[bpfExecEvent](record)
	if err != nil {
		return execRecord{}, err
	}
	texts := event.NewTexts(tail)
	r := execRecord{bpfExecEvent: fixed}
	r.executable = in.Path(texts.Next(fixed.ExecutableSize), r.has(bpfExecFlagEXEC_EXECUTABLE_TRUNCATED))
	r.directory = in.Path(texts.Next(fixed.DirectorySize), r.has(bpfExecFlagEXEC_DIRECTORY_TRUNCATED))
	parent := texts.Next(fixed.ParentSize)
	if r.has(bpfExecFlagEXEC_HAS_PARENT_EXECUTABLE) {
		r.parent = in.Path(parent, r.has(bpfExecFlagEXEC_PARENT_TRUNCATED))
	}
	r.script = in.CString(texts.Next(fixed.ScriptSize))
	r.interpreter = in.CString(texts.Next(fixed.InterpreterSize))
	r.args = splitArgs(texts.Next(fixed.ArgsSize))
	return r, texts.End()
}

// splitArgs cuts a command line as the kernel lays it out: every argument ends
// with a NUL, but for the last one when it was cut.
func splitArgs(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(event.Valid(string(bytes.TrimSuffix(text, []byte{0}))), "\x00")
}

// emitter turns records into log records. It belongs to the ring reader's goroutine.
type emitter struct {
	p                     *process
	in                    *event.Interner
	exec, exit, oomKilled *otlp.EventKind
	// observed is when the records of this drain were read; 0 before its first.
	observed pcommon.Timestamp
	// bodies are those made lately, by what they are made of.
	bodies map[[2]string]string
}

func newEmitter(p *process, logs *otlp.Logs) *emitter {
	return &emitter{
		p: p, in: &p.strings,
		exec:      logs.Event("process.exec"),
		exit:      logs.Event("process.exit"),
		oomKilled: logs.Event("process.oom_killed"),
	}
}

// drained ends what the records of one drain share.
func (e *emitter) drained() { e.observed = 0 }

// maxBodies bounds the bodies that are kept; at it, all are forgotten.
const maxBodies = 4096

// body returns the body made of two parts, which records repeat.
func (e *emitter) body(parts [2]string, build func([2]string) string) string {
	if body, ok := e.bodies[parts]; ok {
		return body
	}
	if e.bodies == nil || len(e.bodies) >= maxBodies {
		e.bodies = map[[2]string]string{}
	}
	body := build(parts)
	e.bodies[parts] = body
	return body
}

// record handles one record from the ring.
func (e *emitter) record(record []byte) error {
	kind, err := event.Kind(record)
	if err != nil {
		return err
	}
	switch bpfEventKind(kind) {
	case bpfEventKindEVENT_EXEC:
		r, err := decodeExec(record, e.in)
		if err != nil {
			return err
		}
		e.emitExec(&r)
	case bpfEventKindEVENT_EXIT:
		fixed, tail, err := event.As[bpfExitEvent](record)
		if err != nil || len(tail) > 0 {
			return malformed(err, tail)
		}
		e.emitExit(fixed)
	case bpfEventKindEVENT_FORK:
		fixed, tail, err := event.As[bpfForkEvent](record)
		if err != nil || len(tail) > 0 {
			return malformed(err, tail)
		}
		e.follow(fixed)
	case bpfEventKindEVENT_OOM:
		fixed, tail, err := event.As[bpfOomEvent](record)
		if err != nil || len(tail) > 0 {
			return malformed(err, tail)
		}
		e.emitOOM(fixed)
	default:
		return fmt.Errorf("%w: kind %d", event.ErrMalformed, kind)
	}
	return nil
}

func malformed(err error, tail []byte) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %d bytes left over", event.ErrMalformed, len(tail))
}

// nameOf is the comm, which is NUL-padded.
func (e *emitter) nameOf(comm *[16]uint8) string {
	return e.in.CString(comm[:])
}

func (e *emitter) emitExec(r *execRecord) {
	name := e.nameOf(&r.Comm)
	e.p.env.Identity.Exec(enrich.Process{
		PID: r.Ids.Pid, ParentPID: r.Ids.ParentPid, Start: r.Ids.Start,
		Executable: r.executable, Name: name, Cgroup: r.Header.CgroupId, UID: r.Ids.RealUid,
	})
	if !e.exec.Enabled() {
		return
	}
	body := e.body([2]string{"exec ", r.executable}, join)
	out := e.begin(e.exec, &r.Header, &r.Ids, body, r.executable, name, r.attributes())
	out.String("process.working_directory", r.directory)
	out.Int("process.args_count", int64(r.Argc))
	if r.parent != "" {
		out.String("linux.process.parent.executable.path", r.parent)
	}
	e.execFlags(out, r)
	if r.has(bpfExecFlagEXEC_SCRIPT) {
		out.String("linux.process.script", r.script)
		out.String("linux.process.interpreter", r.interpreter)
	}
	if len(r.args) > 0 {
		out.Strings("process.command_args", r.args)
	}
	if r.CapabilitiesGained != 0 {
		out.Strings("linux.process.capabilities.gained", capabilityNames(r.CapabilitiesGained))
	}
}

func join(parts [2]string) string { return parts[0] + parts[1] }

// attributes is how many attributes the record gets.
func (r *execRecord) attributes() int {
	const always = 10 // begin's and two of emitExec's
	n := always + bits.OnesCount32(uint32(r.Flags))
	if len(r.args) > 0 {
		n++
	}
	if r.CapabilitiesGained != 0 {
		n++
	}
	return n
}

// execFlags writes the flags that are set; their absence means false.
func (e *emitter) execFlags(out otlp.Record, r *execRecord) {
	const quiet = bpfExecFlagEXEC_SCRIPT | bpfExecFlagEXEC_CAPABILITIES_KNOWN | bpfExecFlagEXEC_HAS_PARENT_EXECUTABLE
	if r.Flags&^quiet == 0 {
		return
	}
	for _, f := range []struct {
		flag bpfExecFlag
		key  string
	}{
		{bpfExecFlagEXEC_EXECUTABLE_TRUNCATED, "linux.process.executable.truncated"},
		{bpfExecFlagEXEC_DIRECTORY_TRUNCATED, "linux.process.working_directory.truncated"},
		{bpfExecFlagEXEC_DIRECTORY_DELETED, "linux.process.working_directory.deleted"},
		{bpfExecFlagEXEC_PARENT_TRUNCATED, "linux.process.parent.executable.truncated"},
		{bpfExecFlagEXEC_ARGS_TRUNCATED, "linux.process.args.truncated"},
		{bpfExecFlagEXEC_ARGS_UNREADABLE, "linux.process.args.unreadable"},
		{bpfExecFlagEXEC_SCRIPT_TRUNCATED, "linux.process.script.truncated"},
		{bpfExecFlagEXEC_DELETED, "linux.process.executable.deleted"},
		{bpfExecFlagEXEC_MEMFD, "linux.process.executable.memfd"},
	} {
		if r.has(f.flag) {
			out.Bool(f.key, true)
		}
	}
}

// capabilityNames are the names of a set's members: CAP_NET_ADMIN.
func capabilityNames(set uint64) []string {
	var names []string
	for c := range 64 {
		if set>>c&1 == 0 {
			continue
		}
		if c <= int(capability.CAP_CHECKPOINT_RESTORE) {
			names = append(names, "CAP_"+strings.ToUpper(capability.Cap(c).String()))
		} else {
			names = append(names, "CAP_"+strconv.Itoa(c))
		}
	}
	return names
}

func (e *emitter) emitExit(r *bpfExitEvent) {
	executable := e.executableOf(&r.Ids, e.p.env.Identity.Known)
	e.p.env.Identity.Exit(r.Ids.Pid, r.Ids.Start, e.p.env.Clock.Wall(r.Header.Time))
	if !e.exit.Enabled() {
		return
	}
	name := e.nameOf(&r.Comm)
	status := unix.WaitStatus(r.Status)
	failure := errorType(status)
	body := e.body([2]string{name, failure}, exitBody)
	out := e.begin(e.exit, &r.Header, &r.Ids, body, executable, name, 13)
	if failure != "" {
		out.String("error.type", failure)
	}
	if status.Signaled() {
		out.String("linux.process.exit.signal", failure)
		if status.CoreDump() {
			out.Bool("linux.process.core_dumped", true)
		}
	} else {
		out.Int("process.exit.code", int64(status.ExitStatus()))
	}
	out.Double("linux.process.lifetime", time.Duration(r.Header.Time-r.Ids.Start).Seconds())
	out.Int("linux.process.max_rss", int64(r.MaxRssPages)*int64(os.Getpagesize()))
}

// exitBody says who ended, and why unless all was well.
func exitBody(nameAndFailure [2]string) string {
	if nameAndFailure[1] == "" {
		return "exit of " + nameAndFailure[0]
	}
	return "exit of " + nameAndFailure[0] + ": " + nameAndFailure[1]
}

func (e *emitter) emitOOM(r *bpfOomEvent) {
	name := e.nameOf(&r.Comm)
	out := e.begin(e.oomKilled, &r.Header, &r.Ids, "out of memory: killed "+name, e.executableOf(&r.Ids, e.p.env.Identity.Process), name, 11)
	if r.LimitPages == 0 {
		out.String("linux.oom.constraint", "host")
		return
	}
	page := int64(os.Getpagesize())
	out.String("linux.oom.constraint", "cgroup")
	out.Int("linux.memory.limit", int64(r.LimitPages)*page)
	out.Int("linux.memory.usage", int64(r.UsagePages)*page)
}

// begin starts a log record with what all of them say of the process.
func (e *emitter) begin(kind *otlp.EventKind, header *bpfEventHeader, ids *bpfProcessIds, body, executable, name string, attributes int) otlp.Record {
	when := pcommon.Timestamp(e.p.env.Clock.WallNano(header.Time))
	if e.observed == 0 {
		e.observed = pcommon.NewTimestampFromTime(time.Now())
	}
	out := kind.Append(e.p.env.Identity.Container(header.CgroupId), when, e.observed, body, attributes)
	out.Int("process.pid", int64(ids.Pid))
	out.Int("process.parent_pid", int64(ids.ParentPid))
	out.String("process.creation.time", e.p.env.Clock.Wall(ids.Start).Format(time.RFC3339Nano))
	out.Int("process.user.id", int64(ids.Uid))
	out.Int("process.real_user.id", int64(ids.RealUid))
	out.String("linux.process.name", name)
	if executable != "" {
		out.String("process.executable.path", executable)
		out.String("process.executable.name", event.Base(executable))
	}
	return out
}

// executableOf is the path of a process's executable as far as it is known to
// lookup, or else its parent's, whose program a process that never executed one
// still runs.
func (e *emitter) executableOf(ids *bpfProcessIds, lookup func(pid uint32, start uint64) (enrich.Process, bool)) string {
	if p, ok := lookup(ids.Pid, ids.Start); ok && p.Executable != "" {
		return p.Executable
	}
	if p, ok := lookup(ids.ParentPid, ids.ParentStart); ok {
		return p.Executable
	}
	return ""
}

// follow takes note of a new process, which runs its parent's program.
func (e *emitter) follow(r *bpfForkEvent) {
	parent := enrich.Process{PID: r.Ids.ParentPid, Start: r.Ids.ParentStart}
	e.p.env.Identity.Fork(parent, enrich.Process{
		PID: r.Ids.Pid, ParentPID: r.Ids.ParentPid, Start: r.Ids.Start,
		Cgroup: r.Header.CgroupId, UID: r.Ids.RealUid,
	})
}
