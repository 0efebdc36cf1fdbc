// SPDX-License-Identifier: MIT
#include "training/energy_function.hpp"

#include <torch/torch.h>

#include "kernels/error.hpp"

namespace macekit::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct EnergyFunction : torch::autograd::Function<EnergyFunction> {
  static variable_list forward(AutogradContext* context, const torch::Tensor& flat, Model* model, const Batch* batch, bool gradient) {
    model->use(flat);
    const Graph graph = batch->graph.view();
    Evaluation result;
    model->differentiable().evaluate(graph, gradient, result);
    torch::Tensor energy = torch::empty({graph.num_graphs}, torch::kFloat64);
    torch::Tensor edge_gradient = torch::zeros({graph.num_edges, 3}, torch::kFloat64);
    std::copy(result.energy.begin(), result.energy.end(), energy.data_ptr<double>());
    if (gradient) std::copy(result.edge_gradient.begin(), result.edge_gradient.end(), edge_gradient.data_ptr<double>());
    context->saved_data["model"] = reinterpret_cast<std::int64_t>(model);
    context->saved_data["batch"] = reinterpret_cast<std::int64_t>(batch);
    context->set_materialize_grads(false);
    return {energy, edge_gradient};
  }

  static variable_list backward(AutogradContext* context, variable_list bar) {
    auto* model = reinterpret_cast<Model*>(context->saved_data["model"].toInt());
    auto* batch = reinterpret_cast<const Batch*>(context->saved_data["batch"].toInt());
    const Graph graph = batch->graph.view();
    const torch::Tensor energy_seed = bar[0].defined() ? bar[0].contiguous() : torch::zeros({graph.num_graphs}, torch::kFloat64);
    const torch::Tensor vec_dot = bar[1].defined() ? bar[1].contiguous() : torch::Tensor();
    const double* vec_dot_data = vec_dot.defined() ? vec_dot.const_data_ptr<double>() : nullptr;
    const torch::Tensor flat_bar = torch::empty({model->flat().numel()}, model->dtype());
    const auto fill = [&](auto* data) {
      std::vector<decltype(data)> parts;
      for (const auto& p : model->parameters()) parts.push_back(data + p.offset);
      Differentiable::Ready ready;
      if (model->on_bucket) ready = [&](int bucket) { model->on_bucket(bucket, flat_bar); };
      model->differentiable().parameter_gradient(graph, energy_seed.const_data_ptr<double>(), vec_dot_data, parts, ready);
    };
    if (model->precision() == Precision::float64)
      fill(flat_bar.data_ptr<double>());
    else
      fill(flat_bar.data_ptr<float>());
    return {flat_bar, torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

Prediction predict(Model& model, const torch::Tensor& flat, const Batch& batch, bool forces, bool stress) {
  const variable_list out = EnergyFunction::apply(flat, &model, &batch, forces || stress);
  Prediction p;
  p.energy = out[0];
  const torch::Tensor& g = out[1];
  if (forces) {
    const torch::Tensor zero = torch::zeros_like(batch.forces);
    p.forces = zero.index_add(0, batch.sender, g).index_add(0, batch.receiver, -g);
  }
  if (stress) {
    const torch::Tensor product = g.unsqueeze(2) * batch.vec.unsqueeze(1);  // [E,3,3]
    const torch::Tensor strain_bar = torch::zeros_like(batch.stress).index_add(0, batch.graph_of.index_select(0, batch.receiver), product);
    p.virials = -0.5 * (strain_bar + strain_bar.transpose(1, 2));
    p.stress = -p.virials / batch.volume.reshape({-1, 1, 1});
  }
  return p;
}

}  // namespace macekit::training
