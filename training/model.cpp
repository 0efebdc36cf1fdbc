// SPDX-License-Identifier: MIT
#include "training/model.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"

namespace macekit::training {

bool decays(const std::string& name) {
  const auto contains = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (name.rfind("products.", 0) == 0) return true;
  return name.rfind("interactions.", 0) == 0 && (contains("linear.weight") || contains("skip_tp_full.weight"));
}

std::string group_of(const std::string& name) {
  for (const char* group : {"interactions", "products", "readouts"})
    if (name.rfind(group, 0) == 0) return group;
  return name.rfind("node_embedding", 0) == 0 ? "embedding" : "inputs";
}

Model::Model(const Potential& potential, Precision precision, Backend backend)
    : potential_(potential), precision_(precision), backend_(backend), differentiable_(make_differentiable(potential, precision, backend)) {
  const auto& known = differentiable_->parameters();
  parameters_.resize(known.size());
  std::int64_t offset = 0;
  for (bool decayed : {true, false}) {
    for (std::size_t k = 0; k < known.size(); ++k) {
      if (decays(known[k].name) != decayed) continue;
      std::int64_t size = 1;
      for (auto extent : known[k].shape) size *= extent;
      parameters_[k] = {known[k].name, known[k].shape, offset, size};
      offset += size;
    }
    if (decayed) num_decayed_ = offset;
  }
  flat_ = torch::zeros({offset}, torch::kFloat64);
  for (const Parameter& p : parameters_) {
    const auto& values = potential.tensors().at(p.name).real;
    require(static_cast<std::int64_t>(values.size()) == p.size, "training: ", p.name, " has ", values.size(), " numbers, expected ",
            p.size);
    std::copy(values.begin(), values.end(), flat_.data_ptr<double>() + p.offset);
  }
  flat_ = flat_.to(dtype());
  use(flat_);
}

std::vector<torch::Tensor> Model::views_of_bucket(int bucket, const torch::Tensor& flat) const {
  std::vector<torch::Tensor> views;
  for (int index : differentiable_->buckets().at(bucket)) views.push_back(flat.narrow(0, parameters_[index].offset, parameters_[index].size));
  return views;
}

void Model::use(const torch::Tensor& flat) {
  for (std::size_t k = 0; k < parameters_.size(); ++k) {
    const int index = static_cast<int>(k);
    if (precision_ == Precision::float64)
      differentiable_->set_parameter(index, flat.const_data_ptr<double>() + parameters_[k].offset);
    else
      differentiable_->set_parameter(index, flat.const_data_ptr<float>() + parameters_[k].offset);
  }
}

void Model::add_low_rank(int rank, double alpha, std::uint64_t seed) {
  require<InputError>(!low_rank_, "lora: the model has low-rank weights already.");
  low_rank_.emplace(hyperparameters(), parameters_, rank, alpha);
  low_rank_trained_ = low_rank_->initial(seed, dtype());
}

Model::Constants Model::constants() const {
  const Tensors& tensors = potential_.tensors();
  Constants c;
  c.atomic_energies = tensors.at("atomic_energies_fn.atomic_energies").real;
  if (tensors.count("scale_shift.scale")) c.scale = tensors.at("scale_shift.scale").real, c.shift = tensors.at("scale_shift.shift").real;
  return c;
}

void Model::set_atomic_energies(const std::vector<double>& atomic_energies) {
  Tensors tensors = potential_.tensors();
  auto& stored = tensors.at("atomic_energies_fn.atomic_energies").real;
  require<InputError>(stored.size() == atomic_energies.size(), "E0s: expected ", stored.size(), " energies, got ", atomic_energies.size(),
                      ".");
  stored = atomic_energies;
  potential_ = Potential(potential_.hyperparameters(), std::move(tensors), potential_.metadata_json());
  const Constants c = constants();
  differentiable_->set_constants(c.scale, c.shift, c.atomic_energies);
}

Potential Model::potential(const torch::Tensor& flat, const std::string& metadata_json) const {
  Tensors tensors = potential_.tensors();
  const torch::Tensor values = flat.detach().to(torch::kFloat64).contiguous();
  for (const Parameter& p : parameters_) {
    const double* data = values.const_data_ptr<double>() + p.offset;
    tensors.at(p.name).real.assign(data, data + p.size);
  }
  return Potential(potential_.hyperparameters(), std::move(tensors), metadata_json);
}

Potential new_potential(const Hyperparameters& hyperparameters, const std::vector<double>& atomic_energies,
                        const std::vector<double>& scale, const std::vector<double>& shift, std::uint64_t seed) {
  validate(hyperparameters);
  const std::size_t heads = hyperparameters.heads.size();
  require<InputError>(atomic_energies.size() == heads * hyperparameters.num_elements(), "new potential: expected ",
                      heads * hyperparameters.num_elements(), " atomic energies, got ", atomic_energies.size(), ".");
  require<InputError>(scale.size() == heads && shift.size() == heads, "new potential: expected one scale and one shift for each of ", heads,
                      " heads.");
  Tensors tensors = initial_tensors(hyperparameters, atomic_energies, seed);
  if (tensors.count("scale_shift.scale")) {
    tensors.at("scale_shift.scale").real = scale;
    tensors.at("scale_shift.shift").real = shift;
  }
  return Potential(hyperparameters, std::move(tensors));
}

}  // namespace macekit::training
