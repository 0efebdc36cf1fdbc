// SPDX-License-Identifier: MIT
// Whole numbers from JSON. nlohmann's own conversion cuts 16.5 to 16, and is undefined for 1e93.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace macekit {

/// Sets `target`; false if `json` is no whole number that it can hold.
template <class T>
bool read_whole(const nlohmann::json& json, T& target) {
  if (!json.is_number_integer()) return false;
  const bool fits = json.is_number_unsigned() ? std::in_range<T>(json.get<std::uint64_t>()) : std::in_range<T>(json.get<std::int64_t>());
  if (fits) target = json.get<T>();
  return fits;
}

/// The same for a list of them.
template <class T>
bool read_whole(const nlohmann::json& json, std::vector<T>& target) {
  if (!json.is_array()) return false;
  target.clear();
  for (const auto& entry : json) {
    T value;
    if (!read_whole(entry, value)) return false;
    target.push_back(value);
  }
  return true;
}

}  // namespace macekit
