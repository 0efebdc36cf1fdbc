// SPDX-License-Identifier: MIT
#include "potentials/hyperparameters.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/error.hpp"
#include "potentials/nearest.hpp"
#include "potentials/whole_numbers.hpp"

namespace macekit {
namespace {

using Json = nlohmann::json;

struct WrongType {};

// Sets a field; throws WrongType or nlohmann's exceptions.
template <class T>
void set(const Json& json, T& member) {
  if constexpr (std::is_same_v<T, int> || std::is_same_v<T, std::vector<int>>) {
    if (!read_whole(json, member)) throw WrongType();
  } else {
    json.get_to(member);
  }
}

// The one list of fields: f(name, member). The second list came with format version 2; files
// of version 1 lack them and mean the default.
template <class H, class F>
void for_each_field(H& hp, const F& f) {
  f("model", hp.model), f("atomic_numbers", hp.atomic_numbers), f("heads", hp.heads), f("r_max", hp.r_max), f("num_bessel", hp.num_bessel);
  f("num_polynomial_cutoff", hp.num_polynomial_cutoff), f("max_ell", hp.max_ell), f("num_interactions", hp.num_interactions);
  f("num_channels", hp.num_channels), f("max_L", hp.max_L), f("radial_MLP", hp.radial_MLP), f("MLP_width", hp.MLP_width);
  f("correlation", hp.correlation), f("interaction_first", hp.interaction_first), f("interaction", hp.interaction), f("radial_type", hp.radial_type);
  f("gate", hp.gate), f("use_reduced_cg", hp.use_reduced_cg), f("avg_num_neighbors", hp.avg_num_neighbors), f("silu_factor", hp.silu_factor);
}
template <class H, class F>
void for_each_later_field(H& hp, const F& f) {
  f("distance_transform", hp.distance_transform), f("readout", hp.readout), f("apply_cutoff", hp.apply_cutoff), f("pair_repulsion", hp.pair_repulsion);
  f("use_so3", hp.use_so3), f("use_agnostic_product", hp.use_agnostic_product), f("use_last_readout_only", hp.use_last_readout_only);
  f("keep_last_layer_irreps", hp.keep_last_layer_irreps), f("edge_channels", hp.edge_channels), f("edge_max_L", hp.edge_max_L);
  f("use_edge_irreps_first", hp.use_edge_irreps_first), f("embeddings", hp.embeddings), f("use_embedding_readout", hp.use_embedding_readout);
  f("sigmoid_factor", hp.sigmoid_factor), f("gate_factor", hp.gate_factor), f("dispersion", hp.dispersion), f("uncertainty", hp.uncertainty);
}

void check_choice(const char* key, const std::string& value, const std::vector<std::string>& supported, const std::vector<std::string>& known) {
  if (std::count(supported.begin(), supported.end(), value)) return;
  require<InputError>(!std::count(known.begin(), known.end(), value), "hyper-parameter ", key, ": ", value, " is not supported by this version of macekit; supported: ",
                      join(supported), ".");
  std::vector<std::string> all(supported);
  all.insert(all.end(), known.begin(), known.end());
  throw InputError("hyper-parameter " + std::string(key) + ": unknown value " + value + "; did you mean " + nearest(value, all) + "?");
}

void check_range(const char* key, double value, double low, double high) {
  require<InputError>(std::isfinite(value) && value >= low && value <= high, "hyper-parameter ", key, " is ", value, ", allowed are ", low, " to ", high, ".");
}

}  // namespace

void to_json(Json& json, const InputEmbedding& e) {
  json = {{"name", e.name}, {"type", e.type}, {"per", e.per}, {"emb_dim", e.emb_dim}};
  if (e.type == "categorical") json["num_classes"] = e.num_classes, json["offset"] = e.offset;
  else json["in_dim"] = e.in_dim, json["use_bias"] = e.use_bias;
}
void from_json(const Json& json, InputEmbedding& e) {
  json.at("name").get_to(e.name), json.at("type").get_to(e.type), json.at("per").get_to(e.per), set(json.at("emb_dim"), e.emb_dim);
  if (e.type == "categorical") set(json.at("num_classes"), e.num_classes), set(json.at("offset"), e.offset);
  else set(json.at("in_dim"), e.in_dim), json.at("use_bias").get_to(e.use_bias);
}

void to_json(Json& json, const DispersionSettings& d) {
  json = {{"method", d.method}};
  if (d.method == "None") return;
  json.update({{"functional", d.functional}, {"s6", d.s6}, {"s8", d.s8}, {"a1", d.a1}, {"a2", d.a2}, {"cutoff", d.cutoff}, {"smoothing", d.smoothing}});
}
void from_json(const Json& json, DispersionSettings& d) {
  json.at("method").get_to(d.method);
  if (d.method == "None") return;
  json.at("functional").get_to(d.functional), json.at("s6").get_to(d.s6), json.at("s8").get_to(d.s8), json.at("a1").get_to(d.a1), json.at("a2").get_to(d.a2);
  json.at("cutoff").get_to(d.cutoff), json.at("smoothing").get_to(d.smoothing);
}

void validate(const Hyperparameters& hp) {
  check_choice("model", hp.model, {"ScaleShiftMACE", "MACE"}, {"PolarMACE", "MACELES", "AtomicDipolesMACE", "AtomicDielectricMACE", "EnergyDipolesMACE", "BOTNet"});
  require<InputError>(!hp.atomic_numbers.empty(), "hyper-parameter atomic_numbers is empty; name at least one element.");
  for (std::size_t k = 0; k < hp.atomic_numbers.size(); ++k) {
    check_range("atomic_numbers", hp.atomic_numbers[k], 1, 118);
    require<InputError>(k == 0 || hp.atomic_numbers[k - 1] < hp.atomic_numbers[k], "hyper-parameter atomic_numbers must ascend without repetition; ",
                        hp.atomic_numbers[k], " does not fit after ", k ? hp.atomic_numbers[k - 1] : 0, ".");
  }
  require<InputError>(!hp.heads.empty() && std::set<std::string>(hp.heads.begin(), hp.heads.end()).size() == hp.heads.size(),
                      "hyper-parameter heads must be a list of different names.");
  require<InputError>(std::isfinite(hp.r_max) && hp.r_max > 0, "hyper-parameter r_max is ", hp.r_max, ", it must be a positive length in Angstrom.");
  check_range("num_bessel", hp.num_bessel, 1, 1024);
  check_range("num_polynomial_cutoff", hp.num_polynomial_cutoff, 2, 64);
  check_range("max_ell", hp.max_ell, 0, 3);
  check_range("num_interactions", hp.num_interactions, 1, 32);
  check_range("num_channels", hp.num_channels, 1, 65536);
  check_range("max_L", hp.max_L, 0, std::min(2, hp.max_ell));
  check_range("edge_channels", hp.edge_channels, 0, 65536);
  check_range("edge_max_L", hp.edge_max_L, -1, hp.max_L);
  require<InputError>(!hp.radial_MLP.empty(), "hyper-parameter radial_MLP is empty; name at least one hidden width.");
  for (int width : hp.radial_MLP) check_range("radial_MLP", width, 1, 65536);
  check_range("MLP_width", hp.MLP_width, 1, 65536);
  check_range("correlation", hp.correlation, 1, 4);
  const std::vector<std::string> blocks{"RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock", "RealAgnosticDensityInteractionBlock",
                                        "RealAgnosticDensityResidualInteractionBlock", "RealAgnosticAttResidualInteractionBlock",
                                        "RealAgnosticResidualNonLinearInteractionBlock"};
  check_choice("interaction_first", hp.interaction_first, blocks, {});
  check_choice("interaction", hp.interaction, blocks, {});
  check_choice("radial_type", hp.radial_type, {"bessel", "gaussian", "chebyshev"}, {});
  require<InputError>(hp.radial_type != "gaussian" || hp.num_bessel > 1, "hyper-parameter num_bessel is 1; a gaussian basis needs at least 2 functions.");
  check_choice("distance_transform", hp.distance_transform, {"None", "Agnesi", "Soft"}, {});
  check_choice("gate", hp.gate, {"silu", "tanh", "abs", "None"}, {});
  check_choice("readout", hp.readout, {"NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"}, {"GeneralNonLinearBiasReadoutBlock", "NonLinearDipoleReadoutBlock"});
  std::set<std::string> inputs;
  for (const InputEmbedding& e : hp.embeddings) {
    require<InputError>(!e.name.empty() && inputs.insert(e.name).second, "hyper-parameter embeddings must have different names; '", e.name, "' is repeated or empty.");
    check_choice("embeddings.type", e.type, {"categorical", "continuous"}, {});
    check_choice("embeddings.per", e.per, {"graph", "node"}, {});
    check_range("embeddings.emb_dim", e.emb_dim, 1, 65536);
    if (e.type == "categorical") check_range("embeddings.num_classes", e.num_classes, 1, 1 << 20);
    else check_range("embeddings.in_dim", e.in_dim, 1, 65536);
  }
  require<InputError>(!hp.use_embedding_readout || !hp.embeddings.empty(), "hyper-parameter use_embedding_readout needs embeddings.");
  check_choice("dispersion.method", hp.dispersion.method, {"None", "D3(BJ)"}, {});
  if (hp.has_dispersion()) {
    check_range("dispersion.s6", hp.dispersion.s6, 0, 10), check_range("dispersion.s8", hp.dispersion.s8, 0, 10);
    check_range("dispersion.a1", hp.dispersion.a1, 0, 10), check_range("dispersion.a2", hp.dispersion.a2, 0, 10);
    check_range("dispersion.cutoff", hp.dispersion.cutoff, 1, 200), check_range("dispersion.smoothing", hp.dispersion.smoothing, 0, hp.dispersion.cutoff);
  }
  require<InputError>(std::isfinite(hp.avg_num_neighbors) && hp.avg_num_neighbors > 0, "hyper-parameter avg_num_neighbors is ", hp.avg_num_neighbors,
                      ", it must be positive.");
  require<InputError>(std::isfinite(hp.silu_factor) && hp.silu_factor > 0, "hyper-parameter silu_factor must be positive.");
  require<InputError>(std::isfinite(hp.sigmoid_factor) && hp.sigmoid_factor > 0, "hyper-parameter sigmoid_factor must be positive.");
  require<InputError>(std::isfinite(hp.gate_factor) && hp.gate_factor > 0, "hyper-parameter gate_factor must be positive.");
}

std::string to_json(const Hyperparameters& hp) {
  Json json = Json::object();
  const auto put = [&](const char* name, const auto& value) { json[name] = value; };
  for_each_field(hp, put), for_each_later_field(hp, put);
  return json.dump();
}

Hyperparameters hyperparameters_from_json(const std::string& text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    throw InputError(std::string("hyper-parameters are not valid JSON: ") + e.what());
  }
  require<InputError>(json.is_object(), "hyper-parameters must be a JSON object.");
  Hyperparameters hp;
  std::vector<std::string> names;
  const auto collect = [&](const char* name, auto&) { names.push_back(name); };
  for_each_field(hp, collect), for_each_later_field(hp, collect);
  for (const auto& [key, value] : json.items())
    require<InputError>(std::count(names.begin(), names.end(), key), "unknown hyper-parameter ", key, "; did you mean ", nearest(key, names), "?");
  const auto read = [&](const char* name, auto& member) {
    const auto refuse = [&] { throw InputError(std::string("hyper-parameter ") + name + " has the wrong type: " + json.at(name).dump() + "."); };
    try {
      set(json.at(name), member);
    } catch (const Json::exception&) {
      refuse();
    } catch (const WrongType&) {
      refuse();
    }
  };
  for_each_field(hp, [&](const char* name, auto& member) {
    require<InputError>(json.contains(name), "hyper-parameter ", name, " is missing.");
    read(name, member);
  });
  for_each_later_field(hp, [&](const char* name, auto& member) {
    if (json.contains(name)) read(name, member);
  });
  return hp;
}

}  // namespace macekit
