// SPDX-License-Identifier: MIT
#include "training/settings.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <vector>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"
#include "potentials/whole_numbers.hpp"

namespace macekit::training {

Settings settings_from_json(const std::string& text) {
  using nlohmann::json;
  Settings s;
  std::map<std::string, std::function<void(const json&)>> read;
  const auto field = [&]<class T>(const std::string& key, T& target) {
    read[key] = [&target, key](const json& value) {
      if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
        require<InputError>(read_whole(value, target), "training: ", key, " = ", value.dump(), " must be a whole number that fits.");
      else
        value.get_to(target);
    };
  };
  field("loss", s.loss.name), field("energy_weight", s.loss.energy_weight), field("forces_weight", s.loss.forces_weight);
  field("stress_weight", s.loss.stress_weight), field("virials_weight", s.loss.virials_weight), field("huber_delta", s.loss.huber_delta),
      field("batch_size", s.batch_size), field("valid_batch_size", s.valid_batch_size), field("num_workers", s.num_workers);
  field("bins", s.bins), field("bin_atoms", s.bin_atoms), field("bin_edges", s.bin_edges), field("balanced", s.balanced), field("deterministic", s.deterministic);
  field("radial", s.radial);
  field("optimizer", s.optimizer), field("amsgrad", s.amsgrad), field("beta", s.beta), field("beta1_schedulefree", s.beta1_schedulefree);
  field("beta2_schedulefree", s.beta2_schedulefree), field("lr_factors", s.lr_factors), field("freeze", s.freeze);
  field("shuffle", s.shuffle), field("seed", s.seed), field("lr", s.lr), field("weight_decay", s.weight_decay);
  field("clip_grad", s.clip_grad), field("ema", s.ema), field("ema_decay", s.ema_decay), field("scheduler", s.scheduler);
  field("lr_factor", s.lr_factor), field("scheduler_patience", s.scheduler_patience), field("lr_scheduler_gamma", s.lr_scheduler_gamma);
  field("max_num_epochs", s.max_num_epochs), field("eval_interval", s.eval_interval), field("patience", s.patience);
  field("start_stage_two", s.start_stage_two), field("stage_two_lr", s.stage_two_lr), field("stage_two_loss", s.stage_two.name);
  field("stage_two_energy_weight", s.stage_two.energy_weight), field("stage_two_forces_weight", s.stage_two.forces_weight);
  field("stage_two_stress_weight", s.stage_two.stress_weight), field("stage_two_virials_weight", s.stage_two.virials_weight);
  field("checkpoint_folder", s.checkpoint_folder), field("name", s.name);
  field("checkpoint_minutes", s.checkpoint_minutes);
  field("explode_factor", s.explode_factor), field("max_rollbacks", s.max_rollbacks), field("rollback_steps", s.rollback_steps);

  std::vector<std::string> known;
  for (const auto& [key, reader] : read) known.push_back(key);
  bool stage_two_loss = false;
  try {
    const json object = json::parse(text);
    for (const auto& [key, value] : object.items()) {
      const auto reader = read.find(key);
      require<InputError>(reader != read.end(), "training: unknown setting ", key, "; did you mean ", nearest(key, known), "?");
      reader->second(value);
      stage_two_loss = stage_two_loss || key == "stage_two_loss";
    }
  } catch (const json::exception& error) {
    throw InputError(std::string("training: cannot read the settings: ") + error.what());
  }
  if (!stage_two_loss) s.stage_two.name = s.loss.name;
  s.stage_two.huber_delta = s.loss.huber_delta;

  const auto positive = [](const char* key, double value) {
    require<InputError>(value > 0, "training: ", key, " = ", value, " must be larger than 0.");
  };
  const auto not_negative = [](const char* key, double value) {
    require<InputError>(value >= 0, "training: ", key, " = ", value, " must not be negative.");
  };
  positive("batch_size", s.batch_size), positive("valid_batch_size", s.valid_batch_size), positive("lr", s.lr);
  positive("eval_interval", s.eval_interval), positive("patience", s.patience), positive("stage_two_lr", s.stage_two_lr);
  require<InputError>(!s.deterministic || s.bins > 0, "training: deterministic needs bins, the same on any number of ranks: set bins to the largest number of ranks.");
  require<InputError>(s.balanced || (s.bin_atoms == 0 && s.bin_edges == 0), "training: bins of equal numbers of structures (balanced: false) know no bin_atoms or bin_edges.");
  not_negative("bins", s.bins), not_negative("bin_atoms", static_cast<double>(s.bin_atoms)), not_negative("bin_edges", static_cast<double>(s.bin_edges));
  not_negative("weight_decay", s.weight_decay), not_negative("clip_grad", s.clip_grad), not_negative("max_num_epochs", s.max_num_epochs);
  not_negative("energy_weight", s.loss.energy_weight), not_negative("forces_weight", s.loss.forces_weight);
  not_negative("stress_weight", s.loss.stress_weight), not_negative("virials_weight", s.loss.virials_weight),
      positive("huber_delta", s.loss.huber_delta);
  not_negative("scheduler_patience", s.scheduler_patience), not_negative("num_workers", s.num_workers);
  not_negative("max_rollbacks", s.max_rollbacks), positive("rollback_steps", s.rollback_steps);
  require<InputError>(s.explode_factor == 0 || s.explode_factor > 1, "training: explode_factor = ", s.explode_factor, " must be larger than 1, or 0 for no limit.");
  for (const auto& [key, value] : {std::pair{"beta", s.beta}, std::pair{"beta1_schedulefree", s.beta1_schedulefree},
                                   std::pair{"beta2_schedulefree", s.beta2_schedulefree}})
    require<InputError>(value > 0 && value < 1, "training: ", key, " = ", value, " must lie between 0 and 1.");
  const std::vector<std::string> radials{"auto", "network", "table"};
  require<InputError>(std::count(radials.begin(), radials.end(), s.radial), "training: radial = ", s.radial, " is unknown; did you mean ", nearest(s.radial, radials),
                      "? Known: auto, network, table.");
  const std::vector<std::string> groups{"embedding", "interactions", "products", "readouts", "inputs"};
  const auto check_group = [&](const char* key, const std::string& group) {
    require<InputError>(std::count(groups.begin(), groups.end(), group), "training: ", key, " names the parameter group ", group,
                        "; did you mean ", nearest(group, groups), "?");
  };
  for (const std::string& group : s.freeze) check_group("freeze", group);
  for (const auto& [group, factor] : s.lr_factors) {
    check_group("lr_factors", group);
    require<InputError>(factor >= 0, "training: lr_factors of ", group, " is ", factor, "; it must not be negative.");
  }
  require<InputError>(s.ema_decay >= 0 && s.ema_decay < 1, "training: ema_decay = ", s.ema_decay, " must lie in [0, 1).");
  require<InputError>(s.lr_factor > 0 && s.lr_factor < 1, "training: lr_factor = ", s.lr_factor, " must lie between 0 and 1.");
  return s;
}

}  // namespace macekit::training
