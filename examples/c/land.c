/* A toy land model in C that owns time and drives the emulator of earthsr, once a year, in its own process.

     land CONFIG.yaml FRACTIONS.bin MAPS.bin

   FRACTIONS.bin is what examples/write_fractions.py writes. Each year the model hands the year's fractions over, lets the
   emulator make the map, and takes the areas of classes for its own bookkeeping: how bright the land is. The year's
   classes, rows from south to north, go to MAPS.bin. Nothing is copied: fractions are read into the emulator's own
   memory, and classes and areas are read where they lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "earthsr_bmi.h"

#define CODES "land_surface__land_use_class_code"

/* End with what the emulator says of a call that failed. */
static void expect(int status) {
  if (status == BMI_SUCCESS) return;
  fprintf(stderr, "land: %s\n", earthsr_bmi_last_error());
  exit(1);
}

static void log_line(int level, const char *text, void *context) {
  (void)context;
  fprintf(stderr, "emulator%s: %s\n", level >= 30 ? ", warning" : "", text);
}

/* Names of all outputs or inputs, as the interface wants them: room for each. */
static char **names_of(Bmi *land, int count, int (*get)(Bmi *, char **)) {
  char **names = malloc(count * sizeof *names);
  int i;
  for (i = 0; i < count; i++) names[i] = malloc(BMI_MAX_VAR_NAME);
  expect(get(land, names));
  return names;
}

static double brightness(const char *name) {
  if (strstr(name, "forest")) return 0.12;
  if (strstr(name, "urban")) return 0.15;
  if (strstr(name, "sparse")) return 0.30;
  return 0.20;
}

int main(int argc, char **argv) {
  Bmi land;
  FILE *fractions, *maps;
  char **inputs, **outputs;
  unsigned char *codes;
  double now, end, step;
  int i, cell, input_count, output_count, cells, coarse_cells;

  if (argc != 4) {
    fprintf(stderr, "usage: land CONFIG.yaml FRACTIONS.bin MAPS.bin\n");
    return 2;
  }
  fractions = fopen(argv[2], "rb");
  maps = fopen(argv[3], "wb");
  if (fractions == NULL || maps == NULL) {
    perror(fractions == NULL ? argv[2] : argv[3]);
    return 1;
  }
  register_bmi_earthsr(&land);
  expect(earthsr_bmi_set_log(log_line, NULL));
  expect(land.initialize(&land, argv[1]));

  expect(land.get_input_item_count(&land, &input_count));
  expect(land.get_output_item_count(&land, &output_count));
  inputs = names_of(&land, input_count, land.get_input_var_names);
  outputs = names_of(&land, output_count, land.get_output_var_names);
  expect(land.get_grid_size(&land, 0, &cells));
  expect(land.get_grid_size(&land, 1, &coarse_cells));
  expect(land.get_value_ptr(&land, CODES, (void **)&codes));

  expect(land.get_current_time(&land, &now));
  expect(land.get_end_time(&land, &end));
  expect(land.get_time_step(&land, &step));
  while (now != end) {
    double area = 0, bright = 0;
    for (i = 0; i < input_count; i++) {
      double *values;
      expect(land.get_value_ptr(&land, inputs[i], (void **)&values));
      if (fread(values, sizeof *values, coarse_cells, fractions) != (size_t)coarse_cells) {
        fprintf(stderr, "land: %s ends before %g\n", argv[2], now + step);
        return 1;
      }
    }
    expect(land.update(&land));
    expect(land.get_current_time(&land, &now));
    for (i = 0; i < output_count; i++) {
      double *km2;
      int grid;
      expect(land.get_var_grid(&land, outputs[i], &grid));
      if (grid != 1 || strstr(outputs[i], "water")) continue;
      expect(land.get_value_ptr(&land, outputs[i], (void **)&km2));
      for (cell = 0; cell < coarse_cells; cell++) {
        area += km2[cell];
        bright += km2[cell] * brightness(outputs[i]);
      }
    }
    printf("%.0f: %.0f km2 of land, albedo %.4f\n", now, area, bright / area);
    fwrite(codes, 1, cells, maps);
  }
  expect(land.finalize(&land));
  for (i = 0; i < input_count; i++) free(inputs[i]);
  for (i = 0; i < output_count; i++) free(outputs[i]);
  free(inputs);
  free(outputs);
  fclose(fractions);
  return fclose(maps) ? 1 : 0;
}
