/* A host of libearthsr_bmi that is hard on it, and reports: host REPORT CONFIG OTHER_CONFIG FRACTIONS STEPS

   Lines of REPORT are "key value", of what the host has seen; tests say what it should have been. Standard output stays
   empty. With STEPS above 0 it makes so many years instead, with the fractions of the first, and reports memory. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "earthsr_bmi.h"

#define CODES "land_surface__land_use_class_code"
#define URBAN "land_surface_urban__area_fraction"

static FILE *report;
static int messages, warnings;
static double *fractions;
static int inputs, coarse, cells;
static char names[16][BMI_MAX_VAR_NAME];

static void count_message(int level, const char *text, void *context) {
  messages++;
  warnings += level >= 30;
  fprintf(report, "log%d %s\n", level, text);
  *(int *)context += 1;
}

static void failed(const char *key, int status) {
  fprintf(report, "%s %s\n", key, status == BMI_FAILURE ? earthsr_bmi_last_error() : "gave no failure");
}

static void worked(const char *key, int status) {
  if (status != BMI_SUCCESS) fprintf(report, "%s failed: %s\n", key, earthsr_bmi_last_error());
}

static void handlers(struct sigaction *actions) {
  int i;
  memset(actions, 0, 65 * sizeof *actions);
  for (i = 1; i < 65; i++) sigaction(i, NULL, &actions[i]);
}

static int count_threads(void) {
  DIR *folder = opendir("/proc/self/task");
  struct dirent *entry;
  int count = 0;
  while ((entry = readdir(folder)) != NULL) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

static long resident_kilobytes(void) {
  char line[256];
  long kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status)) sscanf(line, "VmRSS: %ld", &kilobytes);
  fclose(status);
  return kilobytes;
}

static unsigned long sum_of(Bmi *land) {
  unsigned char *codes;
  unsigned long sum = 1469598103UL;
  int i;
  worked("codes", land->get_value_ptr(land, CODES, (void **)&codes));
  for (i = 0; i < cells; i++) sum = (sum ^ codes[i]) * 1099511628211UL;
  return sum;
}

static double time_of(Bmi *land) {
  double now = 0;
  worked("time", land->get_current_time(land, &now));
  return now;
}

static void hand_over(Bmi *land, int year) {
  int i;
  for (i = 0; i < inputs; i++)
    worked("set_value", land->set_value(land, names[i], fractions + (year * inputs + i) * coarse));
}

static void measure(Bmi *land) {
  char *rooms[16];
  int i;
  worked("count", land->get_input_item_count(land, &inputs));
  for (i = 0; i < inputs; i++) rooms[i] = names[i];
  worked("names", land->get_input_var_names(land, rooms));
  worked("coarse", land->get_grid_size(land, 1, &coarse));
  worked("cells", land->get_grid_size(land, 0, &cells));
}

static void *in_thread(void *land) {
  failed("other_thread", ((Bmi *)land)->get_grid_rank(land, 7, &cells));
  return NULL;
}

int main(int argc, char **argv) {
  static struct sigaction before[65], after[65];
  Bmi land, other, blank;
  int i, status, steps = atoi(argv[5]), logged = 0, rank, late;
  double last, longest, nothing[16];
  unsigned long first;
  fenv_t environment;
  pthread_t thread;
  FILE *file = fopen(argv[4], "rb");
  long size;

  report = fopen(argv[1], "w");
  setvbuf(report, NULL, _IOLBF, 0);
  fseek(file, 0, SEEK_END);
  size = ftell(file);
  rewind(file);
  fractions = malloc(size);
  if (fread(fractions, 1, size, file) != (size_t)size) return 3;
  fclose(file);

  setlocale(LC_ALL, "C");
  /* A host that stops at its own floating-point faults, and rounds in its own way. */
  feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
  fesetround(FE_UPWARD);
  handlers(before);
  register_bmi_earthsr(&land);
  register_bmi_earthsr(&other);
  register_bmi_earthsr(&blank);

  failed("threads_none", earthsr_bmi_set_threads(0));
  worked("set_threads", earthsr_bmi_set_threads(1));
  worked("set_log", earthsr_bmi_set_log(count_message, &logged));
  if (steps) {
    long early = 0;
    worked("initialize", land.initialize(&land, argv[2]));
    measure(&land);
    hand_over(&land, 0);
    for (i = 0; i < steps; i++) {
      worked("update", land.update(&land));
      if (i == steps / 5) early = resident_kilobytes();
    }
    fprintf(report, "steps %d\ntime %.0f\nkilobytes %ld\ngrown %ld\n", steps, time_of(&land), early,
            resident_kilobytes() - early);
    worked("finalize", land.finalize(&land));
    return 0;
  }

  failed("null_model", earthsr_bmi_update(NULL));
  failed("null_config", land.initialize(&land, NULL));
  failed("not_initialised", land.update(&land));
  failed("no_config", land.initialize(&land, "none.yaml"));
  worked("finalize_nothing", land.finalize(&land));
  worked("initialize", land.initialize(&land, argv[2]));
  failed("twice", land.initialize(&land, argv[2]));
  failed("threads_late", earthsr_bmi_set_threads(2));
  measure(&land);
  failed("unset", land.update(&land));
  hand_over(&land, 0);
  worked("deadline", earthsr_bmi_set_deadline(&land, 1e-6));
  failed("deadline_negative", earthsr_bmi_set_deadline(&land, -1));
  worked("update", land.update(&land));
  worked("step_seconds", earthsr_bmi_get_step_seconds(&land, &last, &longest, &late));
  fprintf(report, "late %d\nseconds_kept %d\n", late, last > 0 && longest >= last);
  fprintf(report, "threads %d\n", count_threads());
  first = sum_of(&land);
  fprintf(report, "first %lu\n", first);

  /* What does not fit changes nothing. */
  failed("no_name", land.get_value(&land, "nonsense", nothing));
  failed("null_name", land.get_value(&land, NULL, nothing));
  failed("null_dest", land.get_value(&land, URBAN, NULL));
  failed("bad_text", land.get_value(&land, "\xff\xfe", nothing));
  failed("output_set", land.set_value(&land, CODES, nothing));
  failed("size", earthsr_bmi_set_value_checked(&land, URBAN, "double", nothing, 3));
  failed("type", earthsr_bmi_get_value_ptr_checked(&land, URBAN, "float", (void **)&file, &rank));
  failed("no_type", earthsr_bmi_set_value_checked(&land, URBAN, "long", nothing, 3));
  failed("negative", earthsr_bmi_set_value_checked(&land, URBAN, "double", nothing, -3));
  failed("grid", land.get_grid_rank(&land, 9, &rank));
  failed("undefined", land.get_grid_edge_nodes(&land, 0, &rank));
  failed("past", land.update_until(&land, 1990));
  i = 1 << 20;
  failed("index", land.get_value_at_indices(&land, CODES, nothing, &i, 1));
  fractions[0] += 40;
  failed("percent", land.set_value(&land, names[0], fractions));
  fractions[0] -= 40;
  {
    double *values, kept;
    worked("ptr", land.get_value_ptr(&land, names[0], (void **)&values));
    kept = values[0];
    for (i = 0; i < coarse; i++) values[i] += 0.9;
    failed("sums", land.update(&land));
    for (i = 0; i < coarse; i++) values[i] -= 0.9;
    fprintf(report, "input_kept %d\n", values[0] - kept < 1e-12 && kept - values[0] < 1e-12);
  }
  fprintf(report, "kept %d\n", sum_of(&land) == first && time_of(&land) == 1994);
  pthread_create(&thread, NULL, in_thread, &land);
  pthread_join(thread, NULL);

  /* Two in one process, of which one goes back in time; then the first once more. */
  worked("other", other.initialize(&other, argv[3]));
  hand_over(&other, 0);
  worked("other_update", other.update(&other));
  hand_over(&land, 1);
  worked("land_update", land.update(&land));
  fprintf(report, "times %.0f %.0f\n", time_of(&land), time_of(&other));
  fprintf(report, "second %lu\nbackwards %lu\n", sum_of(&land), sum_of(&other));
  failed("end", land.update(&land));
  worked("finalize", land.finalize(&land));
  failed("finalized", land.update(&land));
  worked("again", land.initialize(&land, argv[2]));
  hand_over(&land, 0);
  worked("again_update", land.update(&land));
  fprintf(report, "again %d\n", sum_of(&land) == first);
  worked("finalize_again", land.finalize(&land));
  fprintf(report, "other_goes_on %d\n", time_of(&other) == 1992);
  worked("other_finalize", other.finalize(&other));
  blank.data = (void *)before;
  failed("garbage", blank.update(&blank));

  handlers(after);
  for (i = 1, status = 0; i < 65; i++)
    if (before[i].sa_handler != after[i].sa_handler) fprintf(report, "signal %d was taken\n", i), status++;
  fprintf(report, "signals %d\n", status);
  fprintf(report, "locale %s\n", setlocale(LC_ALL, NULL));
  fegetenv(&environment);
  fprintf(report, "floating %d\n", fegetround() == FE_UPWARD && fegetexcept() == (FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW));
  fprintf(report, "logged %d\nwarnings %d\n", logged == messages, warnings);
  worked("log_back", earthsr_bmi_set_log(NULL, NULL));
  fprintf(report, "done 1\n");
  return 0;
}
