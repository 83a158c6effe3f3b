// SPDX-License-Identifier: Apache-2.0
#include <lmkit/engine/engine.hpp>

#include <condition_variable>
#include <iterator>
#include <mutex>
#include <thread>
#include <variant>

namespace lmkit {
namespace {

// The engine on a thread of its own: commands go in by one queue, events come out by another.
class EngineThread final : public Service {
 public:
  explicit EngineThread(Engine& engine) : engine_(engine), stats_(engine.stats()), last_id_(engine.last_id()), thread_([this] { work(); }) {}

  ~EngineThread() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    commands_wait_.notify_one();
  }

  RequestId submit(Request request) override {
    const std::lock_guard lock(mutex_);
    commands_.push_back(Submit{++last_id_, std::move(request), Sequence::Clock::now()});
    commands_wait_.notify_one();
    return last_id_;
  }

  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    commands_.push_back(Cancel{id});
    commands_wait_.notify_one();
  }

  std::vector<Event> wait(std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    events_wait_.wait_for(lock, timeout, [this] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

  Stats stats() const override {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  struct Submit {
    RequestId id;
    Request request;
    Sequence::Clock::time_point when;
  };
  struct Cancel {
    RequestId id;
  };
  using Command = std::variant<Submit, Cancel>;

  void work() {
    while (take_commands()) {
      engine_.step();
      publish();
    }
  }

  // Hands new commands to the engine, and sleeps while there is nothing to do at all. False: the service ends.
  bool take_commands() {
    std::vector<Command> commands;
    {
      std::unique_lock lock(mutex_);
      commands_wait_.wait(lock, [this] { return stopping_ || !commands_.empty() || engine_.has_work(); });
      if (stopping_) return false;
      commands.swap(commands_);
    }
    for (Command& command : commands) {
      if (auto* submit = std::get_if<Submit>(&command)) engine_.submit(submit->id, std::move(submit->request), submit->when);
      else engine_.cancel(std::get<Cancel>(command).id);
    }
    return true;
  }

  void publish() {
    std::vector<Event> events = engine_.take_events();
    const std::lock_guard lock(mutex_);
    stats_ = engine_.stats();
    if (events.empty()) return;
    std::move(events.begin(), events.end(), std::back_inserter(events_));
    events_wait_.notify_one();
  }

  Engine& engine_;
  mutable std::mutex mutex_;
  std::condition_variable commands_wait_, events_wait_;
  std::vector<Command> commands_;
  std::vector<Event> events_;
  Stats stats_;
  RequestId last_id_;
  bool stopping_ = false;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<Service> start_service(Engine& engine) { return std::make_unique<EngineThread>(engine); }

}  // namespace lmkit
