// SPDX-License-Identifier: MIT
#include "training/checkpoint.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int format_version = 1;

/// FNV-1a over the bit patterns of all numbers and the text of the state: finds flipped bits that leave the file readable.
std::string checksum(const TensorFile& file) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&hash](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3u, hash ^= hash >> 29; };
  for (const auto& [name, tensor] : file.tensors) {
    for (char c : name) add(static_cast<unsigned char>(c));
    for (double x : tensor.real) add(std::bit_cast<std::uint64_t>(x));
  }
  for (const auto& [key, text] : file.metadata)
    if (key != "checksum")
      for (char c : text) add(static_cast<unsigned char>(c));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void put(TensorFile& file, const std::vector<Parameter>& parameters, const std::string& prefix, const torch::Tensor& flat) {
  if (!flat.defined()) return;
  const torch::Tensor values = flat.detach().to(torch::kFloat64);
  for (const Parameter& p : parameters) {
    const double* data = values.const_data_ptr<double>() + p.offset;
    file.tensors[prefix + p.name] = Tensor{p.shape, {data, data + p.size}, {}};
  }
}

void take(const TensorFile& file, const std::vector<Parameter>& parameters, const std::string& prefix, torch::Tensor& flat) {
  torch::Tensor values = torch::empty({flat.numel()}, torch::kFloat64);
  for (const Parameter& p : parameters) {
    const auto tensor = file.tensors.find(prefix + p.name);
    require<FileError>(tensor != file.tensors.end() && tensor->second.size() == p.size, "checkpoint: ", prefix, p.name,
                       " is missing or has another size.");
    std::copy(tensor->second.real.begin(), tensor->second.real.end(), values.data_ptr<double>() + p.offset);
  }
  flat.copy_(values);
}

// JSON has no infinity: null stands for it.
json number(double x) { return std::isfinite(x) ? json(x) : json(nullptr); }
double number(const json& x) { return x.is_null() ? std::numeric_limits<double>::infinity() : x.get<double>(); }

void compare_identity(const json& stored, const json& now, const std::string& path) {
  for (const auto& [key, value] : now.items()) {
    const json before = stored.contains(key) ? stored.at(key) : json(nullptr);
    require<InputError>(before == value, "restart: ", path, " was written with ", key, " = ", before.dump(), ", but the configuration has ",
                        key, " = ", value.dump(), ". Restore the old value, or start afresh under another name.");
  }
}

}  // namespace

TensorFile make_checkpoint(const Model& model, const Optimizer& optimizer, const Schedule& schedule, const State& s,
                           const std::string& identity) {
  TensorFile file;
  const auto& parameters = model.trained_parameters();
  put(file, parameters, "parameters/", optimizer.flat_);
  put(file, parameters, "exp_avg/", optimizer.m_);
  put(file, parameters, "exp_avg_sq/", optimizer.v_);
  put(file, parameters, "max_exp_avg_sq/", optimizer.v_max_);
  put(file, parameters, "ema/", optimizer.average_);
  file.metadata["format"] = "macekit-checkpoint";
  file.metadata["format_version"] = std::to_string(format_version);
  file.metadata["identity"] = identity;
  file.metadata["state"] = json{
      {"epoch", s.epoch},
      {"position", s.position},
      {"loss_sum", s.loss_sum},
      {"stage_two", s.stage_two},
      {"best_loss", number(s.best_loss)},
      {"best_epoch", s.best_epoch},
      {"num_worse", s.num_worse},
      {"valid_loss", number(s.valid_loss)},
      {"num_steps", optimizer.num_steps},
      {"num_averages", optimizer.num_averages},
      {"weight_sum", optimizer.weight_sum},
      {"lr", schedule.lr},
      {"schedule_best", number(schedule.best)},
      {"schedule_num_bad", schedule.num_bad},
      {"most_atoms", s.most_atoms},
      {"recent_losses", s.recent_losses},
      {"checked_loss", number(s.checked_loss)},
      {"point", s.point},
      {"num_rollbacks", s.num_rollbacks},
      {"lr_scale", s.lr_scale},
      {"left_out", s.left_out}}.dump();
  file.metadata["checksum"] = checksum(file);
  return file;
}

void restore_checkpoint(const TensorFile& file, const std::string& path, Model& model, Optimizer& optimizer, Schedule& schedule, State& s,
                        const std::string& identity) {
  const auto metadata = [&](const char* key) {
    const auto entry = file.metadata.find(key);
    require<FileError>(entry != file.metadata.end(), path, ": not a checkpoint of macekit (it has no ", key, ").");
    return entry->second;
  };
  require<FileError>(metadata("format") == "macekit-checkpoint", path, ": not a checkpoint of macekit.");
  require<FileError>(std::stoi(metadata("format_version")) <= format_version, path, ": written by a newer macekit.");
  require<FileError>(metadata("checksum") == checksum(file), path, ": the checksum is wrong, the file is damaged.");
  compare_identity(json::parse(metadata("identity")), json::parse(identity), path);
  const auto& parameters = model.trained_parameters();
  take(file, parameters, "parameters/", optimizer.flat_);
  take(file, parameters, "exp_avg/", optimizer.m_);
  take(file, parameters, "exp_avg_sq/", optimizer.v_);
  take(file, parameters, "max_exp_avg_sq/", optimizer.v_max_);
  if (optimizer.average_.defined()) take(file, parameters, "ema/", optimizer.average_);
  const json state = json::parse(metadata("state"));
  state.at("epoch").get_to(s.epoch), state.at("position").get_to(s.position), state.at("loss_sum").get_to(s.loss_sum);
  state.at("stage_two").get_to(s.stage_two), state.at("best_epoch").get_to(s.best_epoch), state.at("num_worse").get_to(s.num_worse);
  s.best_loss = number(state.at("best_loss")), s.valid_loss = number(state.at("valid_loss"));
  state.at("num_steps").get_to(optimizer.num_steps), state.at("num_averages").get_to(optimizer.num_averages);
  optimizer.weight_sum = state.value("weight_sum", 0.0);
  state.at("lr").get_to(schedule.lr), state.at("schedule_num_bad").get_to(schedule.num_bad);
  schedule.best = number(state.at("schedule_best"));
  s.most_atoms = state.value("most_atoms", std::int64_t(0));
  s.recent_losses = state.value("recent_losses", std::vector<double>());
  s.checked_loss = state.contains("checked_loss") ? number(state.at("checked_loss")) : s.valid_loss;
  s.point = state.value("point", optimizer.num_steps), s.num_rollbacks = state.value("num_rollbacks", 0), s.lr_scale = state.value("lr_scale", 1.0);
  s.left_out = state.value("left_out", std::vector<std::int64_t>());
}

torch::Tensor averaged_weights(const TensorFile& file, const Model& model) {
  require<FileError>(file.metadata.count("checksum") && file.metadata.at("checksum") == checksum(file),
                     "checkpoint: the checksum is wrong, the file is damaged.");
  const auto& parameters = model.trained_parameters();
  torch::Tensor flat = torch::empty_like(model.trained());
  const bool ema = !parameters.empty() && file.tensors.count("ema/" + parameters.front().name);
  take(file, parameters, ema ? "ema/" : "parameters/", flat);
  return model.weights(flat);
}

CheckpointFolder::CheckpointFolder(std::string folder, std::string name) : folder_(std::move(folder)), name_(std::move(name)) {
  if (folder_.empty()) return;
  std::error_code error;
  fs::create_directories(folder_, error);
  require<FileError>(!error, "checkpoints: cannot make the folder ", folder_, ": ", error.message(), ".");
}

std::vector<std::string> CheckpointFolder::steps() const {
  std::vector<std::string> found;
  const std::string start = name_ + ".step-";
  if (!folder_.empty())
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string file = entry.path().filename().string();
      if (file.rfind(start, 0) == 0 && entry.path().extension() == ".safetensors") found.push_back(entry.path().string());
    }
  std::sort(found.rbegin(), found.rend());  // the step has a fixed number of digits
  return found;
}

std::string CheckpointFolder::step_path(std::int64_t num_steps) const {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%010lld", static_cast<long long>(num_steps));
  return (fs::path(folder_) / (name_ + ".step-" + digits + ".safetensors")).string();
}

bool CheckpointFolder::has(std::int64_t num_steps) const { return !folder_.empty() && fs::exists(step_path(num_steps)); }

void CheckpointFolder::save(const TensorFile& file, std::int64_t num_steps, std::int64_t keep, bool single) const {
  if (folder_.empty()) return;
  write_safetensors(step_path(num_steps), file, single);
  const auto found = steps();
  for (std::size_t k = 2; k < found.size(); ++k)
    if (found[k] != step_path(keep)) fs::remove(found[k]);
}

void CheckpointFolder::remove_later(std::int64_t num_steps) const {
  for (const std::string& path : steps())
    if (path > step_path(num_steps)) fs::remove(path);
}

std::string CheckpointFolder::best_path(bool stage_two) const {
  return folder_ + "/" + name_ + (stage_two ? ".best-stage-two" : ".best") + ".safetensors";
}

void CheckpointFolder::save_best(const TensorFile& file, bool stage_two, bool single) const {
  if (!folder_.empty()) write_safetensors(best_path(stage_two), file, single);
}

std::vector<std::string> CheckpointFolder::paths() const {
  std::vector<std::string> found = steps();
  if (!folder_.empty())
    for (bool stage_two : {true, false})
      if (fs::exists(best_path(stage_two))) found.push_back(best_path(stage_two));
  return found;
}

void CheckpointFolder::remove_all() const {
  for (const auto& path : paths()) fs::remove(path);
}

}  // namespace macekit::training
