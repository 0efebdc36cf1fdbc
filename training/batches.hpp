// SPDX-License-Identifier: MIT
#pragma once
#include <memory>

#include "training/balance/sampler.hpp"
#include "training/dataset.hpp"
#include "training/settings.hpp"

namespace macekit::training {

/// The optimiser steps of a training: shuffled and balanced (training/balance), or with `shuffle` off in the order of the set,
/// `batch_size` structures each, the last step what remains.
/// @param num_ranks  bins of a step where the settings leave them open
std::unique_ptr<balance::Sampler> make_batches(const Dataset& data, const Settings& settings, int num_ranks);

/// Any structures as one step of so many bins.
balance::Step make_step(const Dataset& data, const std::vector<std::vector<int>>& bins);

}  // namespace macekit::training
