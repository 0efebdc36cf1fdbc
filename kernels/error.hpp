// SPDX-License-Identifier: MIT
// Errors carry one sentence for the user: what is wrong, where, and how to mend it.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace macekit {

/// A defect of macekit itself. Command line: exit code 70.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Wrong input from the user. Command line: exit code 2; Python: ValueError.
struct InputError : Error {
  using Error::Error;
};
/// A file that is missing, truncated, foreign or too new. Command line: exit code 3; Python: OSError.
struct FileError : Error {
  using Error::Error;
};
/// Arrays whose extents do not fit together. Python: ValueError.
struct ShapeError : InputError {
  using InputError::InputError;
};

/// Throws E with the concatenated parts as its sentence unless `condition` holds.
template <class E = Error, class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream text;
  text.precision(10);
  (text << ... << parts);
  throw E(text.str());
}

}  // namespace macekit
