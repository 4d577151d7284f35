#pragma once

#include <poll.h>

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "shim/client.h"
#include "shim/options.h"
#include "shim/record.h"
#include "shim/replay.h"
#include "shim/start.h"
#include "shim/streams.h"

namespace cedana::shim {

// The life of a shim after the start: output to the log, the replay and the attachers, their input
// to the job, the exit of the root, the reaping of the rest. One thread, one poll(2).
class Relay {
 public:
  Relay(const Options& options, Streams* streams, Record* record, UniqueFd listener);

  // `input` goes to the job's stdin first.
  void SetInput(const std::string& input, bool ends);
  // Returns when root and descendants are gone, the output is at its end and everybody was told.
  void Run(Root root);

 private:
  // Where output comes from: a pipe or the master of the terminal.
  struct Source {
    UniqueFd fd;
    Frame stream;
    // After the root's exit: bytes that were there then and are still to be read before kExit.
    size_t before_exit = 0;
  };

  void Poll();
  [[nodiscard]] int Timeout() const;
  [[nodiscard]] bool JobIsOver() const;
  [[nodiscard]] bool ReadsOutput() const;
  [[nodiscard]] bool TakesInput() const;
  [[nodiscard]] int input_fd() const;

  void Reap();
  void RootExited(std::optional<int> status);
  void AnnounceExit();
  bool ReadOutput(Source* source);
  void WriteInput();
  void EndInput();
  void Accept();
  void Serve(Client* client);
  void Handle(Client* client, const Client::Incoming& frame);
  void Attach(Client* client, unsigned char flags);
  void SendExit(Client* client);
  void SendPendingInput(Client* client);
  [[nodiscard]] std::string PeekInput() const;
  void DropStuck(int64_t now_ms);

  const Stdio stdio_;
  const bool is_foreign_;
  Streams* const streams_;
  Record* const record_;
  UniqueFd listener_;
  UniqueFd signals_;
  std::vector<Source> sources_;
  std::list<Client> clients_;
  Replay replay_;
  Buffer input_;
  bool input_ended_ = false;  // by an attacher, by the dump, or by the root's exit
  char last_input_ = '\n';
  bool log_failed_ = false;
  int64_t hold_until_ms_ = 0;  // --wait-attach: no output is read before
  Root root_;
  bool root_exited_ = false;
  bool exit_announced_ = false;
  bool children_gone_ = false;
};

}  // namespace cedana::shim
