// SPDX-License-Identifier: MIT
#include "potentials/potential.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/error.hpp"
#include "potentials/architecture.hpp"
#include "potentials/model.hpp"
#include "potentials/nearest.hpp"

namespace macekit {
namespace {

constexpr int format_version = 3;

std::string text(const std::vector<std::int64_t>& shape) {
  std::vector<std::string> extents;
  for (std::int64_t extent : shape) extents.push_back(std::to_string(extent));
  return "[" + join(extents) + "]";
}

void check_tensors(const Hyperparameters& hp, const Tensors& tensors) {
  std::set<std::string> expected;
  Shapes shapes = constant_shapes(hp);
  const Shapes trainable = trainable_shapes(hp, tensors);
  shapes.insert(shapes.end(), trainable.begin(), trainable.end());
  for (const auto& [name, shape] : shapes) {
    const auto found = tensors.find(name);
    require<InputError>(found != tensors.end(), "potential: tensor ", name, " is missing.");
    require<InputError>(found->second.shape == shape, "potential: tensor ", name, " has shape ", text(found->second.shape), ", the architecture needs ", text(shape), ".");
    require<InputError>(static_cast<std::int64_t>(found->second.real.size()) == found->second.size(), "potential: tensor ", name, " must hold real numbers.");
    expected.insert(name);
  }
  for (int t = 0; t < hp.num_interactions; ++t)
    for (int l = 0; l <= output_lmax(hp, t); ++l)
      for (int order = 1; order <= hp.correlation; ++order) {
        const std::string name = contraction_basis(t, l, order);
        read_basis(tensors, name, l, order, static_cast<int>(tensors.at(contraction_weight(hp, t, l, order)).shape[1]), (hp.max_ell + 1) * (hp.max_ell + 1));
        expected.insert(name + ".index"), expected.insert(name + ".value");
      }
  for (const auto& [name, tensor] : tensors) {
    require<InputError>(expected.count(name), "potential: tensor ", name, " does not belong to this architecture.");
    for (double x : tensor.real) require<InputError>(std::isfinite(x), "potential: tensor ", name, " contains NaN or infinity; the training that made it has failed.");
  }
}

std::string symbol(int atomic_number) {
  static const char* const symbols[] = {
      "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",
      "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag",
      "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu",
      "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am",
      "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};
  return atomic_number >= 1 && atomic_number <= 118 ? symbols[atomic_number] : std::to_string(atomic_number);
}

}  // namespace

std::string element_symbol(int atomic_number) { return symbol(atomic_number); }

int atomic_number_of(const std::string& name) {
  for (int z = 1; z <= 118; ++z)
    if (symbol(z) == name) return z;
  throw InputError("'" + name + "' is not a chemical element.");
}

Potential::Potential(Hyperparameters hyperparameters, Tensors tensors, std::string metadata_json) {
  validate(hyperparameters);
  check_tensors(hyperparameters, tensors);
  hyperparameters_ = std::make_shared<const Hyperparameters>(std::move(hyperparameters));
  tensors_ = std::make_shared<const Tensors>(std::move(tensors));
  metadata_ = std::make_shared<const std::string>(std::move(metadata_json));
}

Potential Potential::load(const std::string& path) {
  TensorFile file = read_safetensors(path);
  const auto get = [&](const char* key) {
    const auto found = file.metadata.find(key);
    require<FileError>(found != file.metadata.end(), path, ": this safetensors file is not a macekit potential: its metadata has no ", key, ".");
    return found->second;
  };
  require<FileError>(get("format") == "macekit", path, ": this safetensors file is not a macekit potential: its format is '", get("format"), "'.");
  int version = 0;
  try {
    version = std::stoi(get("format_version"));
  } catch (const std::logic_error&) {
    throw FileError(path + ": the format version '" + get("format_version") + "' is not a number; the file is damaged.");
  }
  require<FileError>(version >= 1 && version <= format_version, path, ": format version ", version, " is newer than this macekit reads (", format_version,
                     "); upgrade macekit.");
  try {
    return Potential(hyperparameters_from_json(get("hyperparameters")), std::move(file.tensors), get("metadata"));
  } catch (const InputError& e) {
    throw FileError(path + ": " + e.what());
  }
}

void Potential::save(const std::string& path) const {
  TensorFile file;
  file.metadata = {{"format", "macekit"}, {"format_version", std::to_string(format_version)}, {"hyperparameters", to_json(*hyperparameters_)}, {"metadata", *metadata_}};
  file.tensors = *tensors_;
  write_safetensors(path, file);
}

int Potential::species_of(int atomic_number) const {
  const auto& known = hyperparameters_->atomic_numbers;
  const auto found = std::lower_bound(known.begin(), known.end(), atomic_number);
  if (found == known.end() || *found != atomic_number) {
    std::vector<std::string> symbols;
    for (int z : known) symbols.push_back(symbol(z));
    throw InputError("the potential does not know element " + symbol(atomic_number) + "; it knows " + join(symbols) + ".");
  }
  return static_cast<int>(found - known.begin());
}

int Potential::head_of(const std::string& name) const {
  const auto& heads = hyperparameters_->heads;
  if (name.empty()) {
    require<InputError>(heads.size() == 1, "the potential has several heads; choose one of: ", join(heads), ".");
    return 0;
  }
  const auto found = std::find(heads.begin(), heads.end(), name);
  require<InputError>(found != heads.end(), "the potential has no head '", name, "'; it has: ", join(heads), ".");
  return static_cast<int>(found - heads.begin());
}

}  // namespace macekit
