# SPDX-License-Identifier: MIT
"""Phonons by finite displacements: phonopy makes the displacements and the bands, the potential gives the forces, all in one batch."""

from __future__ import annotations

import numpy as np

from .batch import Batch, Failure
from .relax import relax

IMAGINARY = -0.1  # THz; nearer to zero is noise of the acoustic branches


def phonon(atoms, batch: Batch, supercell=None, length: float = 15.0, displacement: float = 0.01, mesh: float = 40.0, temperatures=(0, 300, 1000), relax_first: bool = True,
           fmax: float = 1e-4, bands: bool = True, **options) -> dict:
    """Harmonic phonons of a crystal.

    Args:
        atoms: a crystal
        batch: evaluates all displaced cells together
        supercell: [a, b, c] or a 3 x 3 matrix of multiples; by default each edge gets at least `length`
        length: A
        displacement: A
        mesh: density of the q-points of densities and thermal properties, A
        temperatures: of the thermal properties, K
        relax_first: start from the relaxed structure
        fmax: largest force left, eV/A
        bands: along seekpath's or phonopy's path, too
        **options: of relax()

    Returns:
        atoms (the primitive cell's parent that was used), supercell, num_displacements, gamma (frequencies at Gamma, THz, imaginary ones negative), lowest (THz, on the mesh
            and along the bands), stable, force_constants, dos (frequency, dos), thermal (temperature K, free_energy kJ/mol, entropy J/K/mol,
            heat_capacity J/K/mol, per primitive cell), bands (distances, frequencies, labels)
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    if not atoms.pbc.all():
        raise Failure("phonons need a crystal: the structure is not periodic in all directions")
    start = relax(atoms, batch.calculator(), fmax=fmax, **options)["atoms"] if relax_first else atoms.copy()
    if supercell is None:
        supercell = [max(1, int(np.ceil(length / edge))) for edge in start.cell.lengths()]
    supercell = np.asarray(supercell, dtype=int)
    matrix = np.diag(supercell) if supercell.ndim == 1 else supercell
    unit = PhonopyAtoms(symbols=start.get_chemical_symbols(), cell=start.cell.array, scaled_positions=start.get_scaled_positions())
    calculation = Phonopy(unit, supercell_matrix=matrix, primitive_matrix="auto", log_level=0)
    calculation.generate_displacements(distance=displacement)

    def forces(cell):
        from ase import Atoms

        displaced = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        displaced.calc = batch.calculator()
        return displaced.get_forces()

    displaced = [cell for cell in calculation.supercells_with_displacements if cell is not None]
    # What the undisplaced supercell has of forces is no force constant.
    rest, *moved = batch.together(forces, [calculation.supercell, *displaced])
    calculation.forces = [f - rest for f in moved]
    calculation.produce_force_constants()
    calculation.symmetrize_force_constants()
    calculation.run_mesh(mesh)
    calculation.run_total_dos()
    # The three acoustic modes at Gamma have no frequency but noise.
    calculation.run_thermal_properties(temperatures=list(temperatures), exclude_gamma_acoustic=True)
    thermal, dos = calculation.thermal_properties, calculation.total_dos
    lowest = float(np.min(calculation.mesh.frequencies))
    result = {"atoms": start, "supercell": matrix, "num_displacements": len(displaced), "gamma": calculation.run_qpoints([[0, 0, 0]]).frequencies[0], "force_constants": calculation.force_constants,
              "dos": {"frequency": dos.frequency_points, "dos": dos.dos},
              "thermal": {"temperature": thermal.temperatures, "free_energy": thermal.free_energy, "entropy": thermal.entropy, "heat_capacity": thermal.heat_capacity}}
    if bands:
        calculation.auto_band_structure(npoints=51)
        path = calculation.band_structure
        labels = [label.replace("$", "").replace("\\mathrm{", "").replace("\\Gamma", "G").replace("}", "") for label in path.labels or []]
        result["bands"] = {"distances": path.distances, "frequencies": path.frequencies, "labels": labels, "connections": list(map(bool, path.path_connections))}
        lowest = min(lowest, min(float(np.min(f)) for f in path.frequencies))
    return result | {"lowest": lowest, "stable": lowest > IMAGINARY}
