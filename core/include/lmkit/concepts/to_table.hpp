// SPDX-License-Identifier: Apache-2.0
//
// What the adaptors from a C++ type to its C table share: making an object from settings, and letting no exception out.
#pragma once

#include <lmkit/abi/plugin.h>
#include <lmkit/base/error.hpp>
#include <lmkit/base/settings.hpp>

#include <concepts>
#include <exception>
#include <new>
#include <utility>

namespace lmkit {

// A type says in its constructor whether it takes settings: T(arguments…, Settings) or T(arguments…).
template <class T, class... Arguments>
concept MadeFromSettings = std::constructible_from<T, Arguments..., Settings> || std::constructible_from<T, Arguments...>;

template <class T, class... Arguments>
  requires MadeFromSettings<T, Arguments...>
T make_from_settings(Settings settings, Arguments&&... arguments) {
  if constexpr (std::constructible_from<T, Arguments..., Settings>) return T(std::forward<Arguments>(arguments)..., settings);
  else return T(std::forward<Arguments>(arguments)...);
}

// Runs a set-up action that may throw; the exception's text becomes the reason of the failure.
template <class Action>
lmkit_status guarded(const lmkit_host* host, Action&& action) noexcept {
  try {
    action();
    return LMKIT_OK;
  } catch (const Error& error) {
    host->fail(error.what());
    return error.kind() == ErrorKind::memory ? LMKIT_OUT_OF_MEMORY : LMKIT_INVALID_ARGUMENT;
  } catch (const std::bad_alloc&) {
    host->fail("out of memory");
    return LMKIT_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    host->fail(error.what());
    return LMKIT_INVALID_ARGUMENT;
  } catch (...) {
    host->fail("an exception without a text");
    return LMKIT_INTERNAL_ERROR;
  }
}

}  // namespace lmkit
