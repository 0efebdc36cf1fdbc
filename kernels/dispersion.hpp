// SPDX-License-Identifier: MIT
// Dispersion D3 with Becke-Johnson damping, without three-body terms: S. Grimme, J. Antony, S. Ehrlich, H. Krieg, J. Chem. Phys. 132,
// 154104 (2010); S. Grimme, S. Ehrlich, L. Goerigk, J. Comput. Chem. 32, 1456 (2011). In eV and Angstrom, always in double.
//
//   E = 1/2 sum_ij e_ij,   e_ij = -C6_ij (s6 / (r^6 + f^6) + s8 q_ij / (r^8 + f^8)),   q = C8 / C6,  f = a1 sqrt(q) + a2
//   C6_ij = sum_ab w_ia w_jb C6ref[Z_i a, Z_j b],   w_ia ~ exp(-4 (CN_i - CNref_a)^2), normalised
//   CN_i = sum_j 1 / (1 + exp(-16 (R_ij / r - 1))),  R_ij = sum of the scaled covalent radii
//
// e and the terms of CN are multiplied by a smooth step that ends at the cut-off.
#pragma once
#include <vector>

namespace macekit {

/// What D3 knows of the elements of a potential; n: their number.
struct DispersionTables {
  static constexpr int references = 7;     ///< at most, of an element
  double s6 = 1, s8 = 0;
  double cutoff = 0, smoothing = 0;        ///< Angstrom; the step is `smoothing` wide, 0: none
  int num_elements = 0;
  std::vector<double> reference_cn;        ///< [n][7]; negative: no such reference
  std::vector<double> reference_c6;        ///< [n][n][7][7] eV A^6
  std::vector<double> radius;              ///< [n] scaled covalent radius, A
  std::vector<double> q;                   ///< [n][n] C8 / C6, A^2
  std::vector<double> f6, f8;              ///< [n][n] powers of the damping length, A^6, A^8
};

/// The neighbours of one atom within the cut-off.
struct Shell {
  std::vector<int> row;
  std::vector<double> x, y, z, r;  ///< vector from the neighbour to the atom, and its length, A
  std::vector<double> work[5];     ///< of the kernels
  int size = 0;
  void grow(int capacity);         ///< keeps what is there
};

/// Cells of equal size over rows of atoms without periodicity.
class CellGrid {
 public:
  /// @param positions  [num_rows][3] A, finite
  CellGrid(int num_rows, const double* positions, double cutoff);
  /// The rows nearer than the cut-off to `row`, itself left out, in an order that depends on positions only.
  void find(int row, Shell& shell) const;

 private:
  const double* positions_;
  double cutoff_, width_, low_[3];
  int cells_[3];
  std::vector<int> first_, row_;  // of each cell; rows in the order of cells
  std::vector<double> x_, y_, z_;
};

/// Of one atom: element, weights and dw/dCN of its references ([7] each).
struct DispersionAtom {
  int species;
  const double *weight, *weight_slope;
};
struct DispersionSums {
  double energy = 0;        ///< half of its pairs', eV
  double slope = 0;         ///< dE/dCN of the atom, eV
  double force[3] = {};     ///< eV/A
  double virial[9] = {};    ///< half of its pairs', -dE/dstrain, row-major, eV
};

/// The work on one atom and its shell. `species`: [num_rows].
struct DispersionKernels {
  /// CN of the atom.
  double (*coordination)(const DispersionTables&, int species_i, const int* species, Shell&);
  /// Adds the pairs at fixed weights. weights: [num_rows][7].
  void (*pairs)(const DispersionTables&, const DispersionAtom&, const int* species, const double* weights, Shell&, DispersionSums&);
  /// Adds the forces by way of CN. slopes: [num_rows] dE/dCN.
  void (*coordination_forces)(const DispersionTables&, int species_i, double slope, const int* species, const double* slopes, Shell&, DispersionSums&);
};
const DispersionKernels& dispersion_kernels();

/// Weights of the references at the coordination number `cn` and their derivatives; [7] each.
void reference_weights(const double* reference_cn, double cn, double* weight, double* slope);

}  // namespace macekit
