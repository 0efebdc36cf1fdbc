// SPDX-License-Identifier: GPL-2.0-only
// pair_style mace: a LAMMPS adaptor. The model lives in potentials/; this header knows LAMMPS only.
#ifndef LMP_PAIR_MACE_H
#define LMP_PAIR_MACE_H

#include <memory>
#include <string>

#include "pair.h"

namespace macekit {
struct Graph;
}

namespace LAMMPS_NS {

class PairMACE : public Pair {
 public:
  explicit PairMACE(class LAMMPS *);
  ~PairMACE() override;
  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;
  double memory_usage() override;

 private:
  struct Implementation;  // the potentials, their workspace and the exchange
  std::unique_ptr<Implementation> impl_;
  int wants_deviation_ = 0;  // fix pair holds its address

  void allocate();
  void compute_forces(const macekit::Graph &);
  void compute_deviation();
  [[noreturn]] void fail_together(const std::string &);
};

}  // namespace LAMMPS_NS

#endif
