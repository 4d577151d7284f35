// What the shim and the daemon say to each other. Read together with src/daemon/host/shim.ts, which is the other side.
//
// Command line
//   cedana-shim --dir DIR --stdio log|pipe|tty|inherit|none [options] -- PROGRAM [ARG…]           starts PROGRAM as the job
//   cedana-shim --dir DIR --stdio … --restore [options] -- CRIU-ARGV… swrk 3                      starts CRIU, becomes parent of the restored root
//     --log PATH          stdout and stderr go there (log); or a copy of the output (pipe, tty). Opened O_APPEND|O_CREAT|O_NOFOLLOW.
//     --log-as-user       open it with the ids of --uid/--gid/--groups (else as root, then fchown to them)
//     --uid N --gid N --groups A,B    ids of PROGRAM (not of CRIU)
//     --cwd PATH          working directory of PROGRAM, entered after the ids are set
//     --rows N --columns N            terminal size (tty)
//     --wait-attach       do not read the output before somebody attaches, at most 10 s
//     --foreground        stay in the caller's session and process group (inherit); ignore SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGTTOU, SIGTTIN
//     --stdin-file PATH   bytes to be written into the job's stdin before anything else (unread input saved at a dump); the file is then unlinked
//   The environment of the shim is the environment of PROGRAM. The shim is statically linked, so nothing in it (LD_PRELOAD) acts on the shim.
//   Without --foreground the shim calls setsid(2); PROGRAM gets a session of its own (so PID = PGID = SID) unless --foreground.
//
// Descriptors at start: 1 = report pipe (one line, then closed), 3 = CRIU's end of the RPC socket (--restore only, passed on to CRIU as 3 and
// closed in the shim once CRIU runs); 4.. up to 9: passed on to CRIU unchanged (4 = reserved for pages). Stderr is kept for diagnostics.
//
// Descriptors CRIU finds (--restore): 0,1,2 /dev/null (or the caller's with inherit); 3 RPC; and those that exist in this stdio mode:
constexpr int kSlotStdin = 10;   // read end of the stdin pipe (pipe); the caller's stdin (inherit)
constexpr int kSlotStdout = 11;  // write end (pipe), caller's (inherit)
constexpr int kSlotStderr = 12;  // write end (pipe), caller's (inherit)
constexpr int kSlotTty = 13;     // slave of the new terminal (tty)
constexpr int kSlotLog = 14;     // the log, O_APPEND (log)
constexpr int kSlotNull = 15;    // /dev/null, O_RDWR
//   --open N:FLAGS:PATH  (repeatable, N from 20 on): opens PATH with the decimal open(2) FLAGS and gives it to CRIU as descriptor N.
//
// Report line on descriptor 1:  "started PID STARTTICKS\n"   or   "failed STEP ERRNO TEXT\n"   (STEP: setup, log, tty, cwd, ids, exec, criu, open)
//
// Files in DIR (0700, made by the daemon), each written to a temporary name, fsynced, renamed, directory fsynced:
//   state   lines "key value": pid, start_ticks, boot_id, shim_pid, stdio, log, started_at (ms), stdin_inode, stdout_inode, stderr_inode (pipe),
//           tty (path of the slave), tty_rdev, tty_dev (decimal, as st_rdev/st_dev in the kernel's new encoding)
//   exit    lines "key value": pid, code, signal, exited_at (ms); code is -1 when a signal ended it, signal is 0 when it exited
// Order at the end: reap → write `exit` durably → drain output → EXIT frames to attachers → when all descendants are gone and output is at EOF: remove shim.sock, exit 0.
//
// Socket DIR/shim.sock (SOCK_STREAM, 0600): frames of u8 type, u32 little-endian payload length (at most 1 MiB), payload.
enum class Frame : unsigned char {
  // client → shim
  kAttach = 'A',      // payload: u8 flags, bit 0 = replay the last output (64 KiB) first. Output frames follow. Answered first with one kStatus.
  kStdin = 'I',       // bytes for stdin
  kStdinEof = 'E',    // closes stdin (pipe: the write end; tty: ^D (VEOF) is written)
  kWindowSize = 'W',  // u16 rows, u16 columns, little-endian
  kPendingStdin = 'P',  // asks for input that the job has not read yet; answered with kPendingStdin (tee(2) of the pipe plus what the shim still holds; nothing is consumed)
  // both ways
  kStatus = 'S',      // request: empty. Answer: the lines of `state`, then those of `exit` when there is one
  // shim → client
  kStdout = 'O',      // bytes (all output of a terminal)
  kStderr = 'R',
  kExit = 'X',        // i32 code (-1 when signalled), i32 signal (0 when it exited); after it nothing more
};
// A client that takes nothing for 10 s while 1 MiB waits for it is dropped: a stuck attacher never holds the job up for longer.
