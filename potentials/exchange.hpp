// SPDX-License-Identifier: MIT
#pragma once

namespace macekit {

/// Carries rows of features between ranks. The model knows nothing else of parallelism.
/// Rows are [num_rows][columns], owned rows first (see Graph).
struct Exchange {
  virtual ~Exchange() = default;
  /// Fills the ghost rows with the features of their owners.
  virtual void forward(double* rows, int columns) = 0;
  virtual void forward(float* rows, int columns) = 0;
  /// Adds the adjoints in the ghost rows to their owners' rows; the ghost rows are not read afterwards.
  virtual void reverse(double* rows, int columns) = 0;
  virtual void reverse(float* rows, int columns) = 0;
  /// False where nothing ever travels: rows then need not be brought to the host.
  virtual bool needed() const { return true; }
  /// True where rows stay in the memory of the evaluator's backend.
  virtual bool resident() const { return false; }
};

/// For graphs without ghosts, where every sender is an owned row (ASE, training).
struct NoExchange final : Exchange {
  void forward(double*, int) override {}
  void forward(float*, int) override {}
  void reverse(double*, int) override {}
  void reverse(float*, int) override {}
  bool needed() const override { return false; }
};

}  // namespace macekit
