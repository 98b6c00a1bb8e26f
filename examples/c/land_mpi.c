/* The toy land model under MPI: ranks share the chunks of one region, and hand each other what they have made.

     mpirun -n 4 land_mpi CONFIG.yaml FRACTIONS.bin MAPS.bin

   CONFIG.yaml has a chunk small enough that each rank gets one. The ranks' cells are known by their owner; a cell that
   another rank makes has 255 after a step, and is handed over before the next. Here all ranks get all cells, by the
   least code of any rank, for 255 is above all others; a host of many ranks sends to each what its read flag names. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "earthsr_bmi.h"

#define CODES "land_surface__land_use_class_code"

static void expect(int status) {
  if (status == BMI_SUCCESS) return;
  fprintf(stderr, "land: %s\n", earthsr_bmi_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char **argv) {
  Bmi land;
  FILE *fractions, *maps = NULL;
  unsigned char *codes;
  double *values, now, end, step;
  int i, rank, ranks, inputs, cells, coarse;
  char **names;

  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (argc != 4 || (fractions = fopen(argv[2], "rb")) == NULL || (rank == 0 && (maps = fopen(argv[3], "wb")) == NULL)) {
    fprintf(stderr, "usage: land_mpi CONFIG.yaml FRACTIONS.bin MAPS.bin\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
    return 2;
  }
  register_bmi_earthsr(&land);
  expect(earthsr_bmi_set_threads(1));
  expect(earthsr_bmi_initialize_share(&land, argv[1], rank, ranks));
  expect(land.get_input_item_count(&land, &inputs));
  names = malloc(inputs * sizeof *names);
  for (i = 0; i < inputs; i++) names[i] = malloc(BMI_MAX_VAR_NAME);
  expect(land.get_input_var_names(&land, names));
  expect(land.get_grid_size(&land, 0, &cells));
  expect(land.get_grid_size(&land, 1, &coarse));
  expect(land.get_value_ptr(&land, CODES, (void **)&codes));
  expect(land.get_current_time(&land, &now));
  expect(land.get_end_time(&land, &end));
  expect(land.get_time_step(&land, &step));
  while (now != end) {
    for (i = 0; i < inputs; i++) {
      expect(land.get_value_ptr(&land, names[i], (void **)&values));
      if (fread(values, sizeof *values, coarse, fractions) != (size_t)coarse) MPI_Abort(MPI_COMM_WORLD, 1);
    }
    expect(land.update(&land));
    expect(land.get_current_time(&land, &now));
    MPI_Allreduce(MPI_IN_PLACE, codes, cells, MPI_UNSIGNED_CHAR, MPI_MIN, MPI_COMM_WORLD);
    if (rank == 0) fwrite(codes, 1, cells, maps);
  }
  expect(land.finalize(&land));
  for (i = 0; i < inputs; i++) free(names[i]);
  free(names);
  fclose(fractions);
  if (maps != NULL) fclose(maps);
  MPI_Finalize();
  return 0;
}
