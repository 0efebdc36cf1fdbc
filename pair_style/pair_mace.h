// SPDX-License-Identifier: GPL-2.0-only
// pair_style mace: a LAMMPS adaptor. The model lives in potentials/; this header knows LAMMPS only.
#ifndef LMP_PAIR_MACE_H
#define LMP_PAIR_MACE_H

#include <memory>
#include <string>

#include "pair.h"

namespace macekit {
struct NeighborList;
class LammpsExchange;
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

 protected:
  struct Implementation;  // the potentials, their workspace and the exchange
  std::unique_ptr<Implementation> impl_;

  /// Where the kernels of a device find atoms and neighbour list, and leave forces.
  struct DeviceArrays {
    const macekit::NeighborList *list;
    const double *x;  ///< [rows][3]
    double *f;        ///< [rows][3] added to; null: forces are wanted on the host
    bool messages;    ///< LAMMPS communicates from and to the device; then, and where f is not null, rows are atoms
  };
  /// Copies of LAMMPS's arrays, unless LAMMPS has its own on the device.
  virtual DeviceArrays device_arrays();
  bool on_device() const;
  const macekit::LammpsExchange &exchange() const;
  [[noreturn]] void fail_together(const std::string &);

 private:
  int wants_deviation_ = 0, wants_uncertainty_ = 0;  // fix pair holds their addresses
  bool rows_changed_ = true;

  void allocate();
  void evaluate(int member);
  void add_dispersion(int member);
  void send_forces_home();
  void add_forces();
  void compute_deviation();
};

}  // namespace LAMMPS_NS

#endif
