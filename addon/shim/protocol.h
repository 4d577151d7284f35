// What the shim and the daemon say to each other. Read together with src/daemon/host/shim.ts, which
// is the other side.
//
// Command line
//   cedana-shim --dir DIR --stdio MODE [options] -- PROGRAM [ARG…]
//       starts PROGRAM as the job; MODE is log, pipe, tty, inherit or none
//   cedana-shim --dir DIR --stdio MODE --restore [options] -- CRIU [ARG…] swrk 3
//       starts CRIU and becomes the parent of the root that CRIU restores as its own sibling
//   cedana-shim --dir DIR --stdio MODE --pid-file PATH [options] -- LAUNCHER [ARG…]
//       runs LAUNCHER on the streams that PROGRAM would get, to its end. Exit 0: the job's root is
//       the process whose PID it has written to PATH, which has been orphaned to the shim. Anything
//       else: what it has left below the shim is killed
//     --log PATH        log: stdout and stderr. pipe, tty: a copy of the output. Opened with
//                       O_APPEND|O_CREAT|O_NOFOLLOW, mode 0644, never truncated
//     --log-as-user     opened with the ids below; else as root, and a new file is given to them
//     --uid N --gid N --groups A,B    ids of PROGRAM or LAUNCHER (not of CRIU); all three or none
//     --cwd PATH        working directory of PROGRAM, entered with the ids set; / when absent
//     --rows N --columns N            size of the terminal (tty); when absent 24 x 80, or that
//                       which the launcher gave it
//     --wait-attach     do not read the output before somebody attaches, for at most 10 s
//     --foreground      (inherit) stay in the caller's session and process group
//     --preserve N      PROGRAM also gets descriptors 3 to 2+N, at most 8
//     --stdin-file PATH bytes for the job's stdin before anything else: the input that was not read
//                       at the dump. Read and unlinked before the start
//     --stdin-eof       close stdin after them: it was already closed at the dump
//     --open N:FLAGS:PATH             (--restore) opens PATH with the decimal open(2) FLAGS and
//                       gives it to CRIU as descriptor N, from 20 on; repeatable
//     --pid-file PATH   unlinked before the launcher starts, and once it is read
//     --foreign         (--pid-file) the root is another's child. LAUNCHER writes "PID START_TICKS"
//                       to PATH, by a rename, when it is there but not started yet; when PATH is
//                       gone it is held, and its end will be known. SIGTERM is passed on to
//                       LAUNCHER, which alone can undo. tty: the terminal is raw, and between the
//                       job's own and the shim
//     --console-socket PATH           (--pid-file, tty) listens there while the launcher runs: the
//                       job's terminal is the one whose master arrives as SCM_RIGHTS of the first
//                       message of the first connection. LAUNCHER has /dev/null as 0 then, and 1
//                       and 2 are kept for TEXT below. An ARG that is PATH becomes a shorter name
//                       of the same where PATH has more than 107 bytes
//   The environment of the shim is that of PROGRAM. The shim is statically linked: nothing in it
//   (LD_PRELOAD) acts on the shim. Without --foreground the shim and PROGRAM each have a session of
//   their own, so the job's PID = PGID = SID.
//
// Signals: all that can be are blocked in the shim; PROGRAM gets an empty mask and default actions.
// SIGTERM while CRIU runs gives the restore up: CRIU and what it made are killed. SIGTERM while
// LAUNCHER runs: what it waits for is killed, and it itself with all that is left 5 s later.
//
// Descriptors at start
//   0 1 2   the caller's: the job's with inherit, else not used
//   3       CRIU's end of the RPC socket (--restore); closed in the shim once CRIU runs
//   4…8     given to CRIU unchanged (--restore)
//   3…8     given to PROGRAM unchanged (--preserve)
//   9       the report pipe: one line, then closed. When nobody reads it the shim goes on the same
//       "started PID START_TICKS SHIM_PID SHIM_START_TICKS BOOT_ID\n" or "failed STEP ERRNO TEXT\n"
//       STEP: setup, log, tty, cwd, ids, exec, open, criu, launcher. With the last TEXT begins with
//       code and signal of the launcher as in `exit`, each with a blank after it, and ends with the
//       last line it wrote (pipe: to stderr; with --console-socket). After "failed" nothing is left
//       behind and the shim exits with 1.
#pragma once

namespace cedana::shim {

constexpr int kRpcFd = 3;
constexpr int kLastPassedFd = 8;
constexpr int kReportFd = 9;

// Descriptors CRIU finds (--restore): 0 1 2 /dev/null (inherit: the caller's), 3…8 as above, --open
// files, and of these those that exist in the stdio mode:
constexpr int kSlotStdin = 10;    // read end of the stdin pipe (pipe); the caller's (inherit)
constexpr int kSlotStdout = 11;   // write end (pipe); the caller's (inherit)
constexpr int kSlotStderr = 12;   // write end (pipe); the caller's (inherit)
constexpr int kSlotTty = 13;      // slave of the new terminal (tty)
constexpr int kSlotLog = 14;      // the log, O_APPEND (log)
constexpr int kSlotLogCopy = 16;  // the same: CRIU takes a descriptor away with each use (log)
constexpr int kSlotTtyCopy = 17;  // the same for a second key (tty)
constexpr int kSlotNull = 15;     // /dev/null, O_RDWR (always)
constexpr int kFirstOpenFd = 20;

// Files in DIR (0700, made by the daemon), each written under a temporary name, synced and renamed.
// Lines are "key value".
//   state     before the program's first instruction (start), after CRIU or launcher is done: pid,
//             start_ticks, boot_id, shim_pid, shim_start_ticks, stdio, log, started_at (ms); pipe:
//             stdin_inode, stdout_inode, stderr_inode; tty: tty (path of the slave where it was
//             made), tty_rdev, tty_dev (st_rdev and st_dev in decimal)
//   exit      before anybody is told: pid, code, signal, exited_at (ms); code is -1 when a signal
//             ended it, signal is 0 when it exited; both when how it ended is not known (--foreign)
//   shim.log  what went wrong after the start (the log's disk is full …); only when something did
//   shim.sock there before `state`, removed at the end
// Order at the end: reap the root → `exit` → drain the output → kExit to attachers → when all
// descendants are gone and the output is at its end: remove shim.sock, exit with 0.

// Socket DIR/shim.sock (SOCK_STREAM, 0600): frames of u8 type, u32 little-endian payload length (at
// most 1 MiB, else the connection is closed), payload.
enum class Frame : unsigned char {
  // client → shim
  kAttach = 'A',      // u8 flags. Answered with one kStatus, then output frames follow, then kExit.
                      // bit 0: the last output (64 KiB) first. bit 1: no output, and kExit as soon
                      // as `exit` is written
  kStdin = 'I',       // bytes for stdin; not taken from the socket while the job does not read
  kStdinEof = 'E',    // ends stdin: pipe: the write end is closed; tty: ^D (VEOF) is written
  kWindowSize = 'W',  // u16 rows, u16 columns, little-endian
  // both ways
  kPendingStdin = 'P',  // request: empty. Answer: u8 (1 when stdin ends after them), then the bytes
  // the job has not read yet (those in the pipe, by tee(2), and those held here).
  // Nothing is consumed. In parts of at most 1 MiB; the last is shorter than that
  kStatus = 'S',  // request: empty. Answer: the lines of `state`, then those of `exit` if any
  // shim → client
  kStdout = 'O',  // bytes (all output of a terminal)
  kStderr = 'R',
  kExit = 'X',  // i32 code, i32 signal as in `exit`; then the connection is closed
};
constexpr unsigned kMaxFrame = 1 << 20;
constexpr unsigned char kAttachReplay = 1;
constexpr unsigned char kAttachExitOnly = 2;

// While an attacher has this much waiting the job's output is not read; one that takes nothing for
// the time below meanwhile is dropped: a stuck attacher holds the job up no longer than that.
constexpr unsigned kMaxPending = 1 << 20;
constexpr int kStuckMs = 10'000;
constexpr int kWaitAttachMs = 10'000;
constexpr unsigned kReplayBytes = 64 << 10;

}  // namespace cedana::shim
