// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <map>
#include <string>
#include <vector>

namespace macekit::training {

/// One structure with its labels.
struct Frame {
  std::vector<int> atomic_numbers;  ///< [N]
  std::vector<double> positions;    ///< [N][3] Angstrom
  std::array<double, 9> cell{};     ///< rows are lattice vectors, Angstrom; |det cell| is the volume by which stress divides
  std::array<bool, 3> periodic{};
  bool has_energy = false, has_forces = false, has_stress = false, has_virials = false;
  double energy = 0;                ///< eV
  std::vector<double> forces;       ///< [N][3] eV/Angstrom; empty: no label
  std::array<double, 9> stress{};   ///< eV/Angstrom^3, row-major, ASE's sign (positive under tension)
  std::array<double, 9> virials{};  ///< eV, row-major: -volume times stress
  double weight = 1;                ///< of the whole frame in the loss
  double energy_weight = 1, forces_weight = 1, stress_weight = 1,
         virials_weight = 1;  ///< of each label; counted as 0 where the label is absent
  int head = 0;
  std::map<std::string, std::vector<double>>
      inputs;  ///< further inputs of the potential (total_charge, ..): one value, or N in_dim of them
  std::string config_type = "Default";
  std::string source;  ///< where the frame comes from, for messages: "train.extxyz frame 12"
};

}  // namespace macekit::training
