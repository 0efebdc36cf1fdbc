// SPDX-License-Identifier: MIT
#pragma once
#include <memory>

#include "training/balance/sampler.hpp"
#include "training/dataset.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// The optimiser steps of a training, of about `batch_size` structures: shuffled (training/balance), or with `shuffle` off in the order of
/// the set. Each is spread over bins of near-equal atoms and edges, more than asked for where bin_atoms and bin_edges demand it.
/// @param num_ranks  bins of a step where the settings leave them open
/// @throws InputError  naming a structure that is larger than a bin may be
std::unique_ptr<balance::Sampler> make_batches(const Dataset& data, const Settings& settings, int num_ranks);

/// Any structures as one step of so many bins.
balance::Step make_step(const Dataset& data, const std::vector<std::vector<int>>& bins);

}  // namespace macekit::training
