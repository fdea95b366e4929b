// What a board may hold by Grafana's own types, which has one for each part and none that holds the parts together.
import type {
  AnnotationQuery,
  Dashboard,
  FieldConfig,
  MatcherConfig,
  Panel,
  RowPanel,
  VariableModel,
  VariableOption,
} from '@grafana/schema';
import type * as stat from './node_modules/@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from './node_modules/@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as history from './node_modules/@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen';
import type * as table from './node_modules/@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as series from './node_modules/@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
// Only 10 has it: since then it is the plugin's own.
import type { PrometheusDataQuery } from './node_modules/schema-10/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen';

// What Grafana takes though its types do not know it, each with the reason. That each is needed is tested.
interface More {
  // "Connect null values", a switch of the panel in 10 to 13 that its types never had.
  gaps: { spanNulls: boolean };
  // Pages of lanes came with 11.2. What is older does without: it reads no option that it does not know.
  pages: { perPage: number };
  // Grafana's own export for others writes this for a choice that is not to be stored.
  unchosen: {};
  // The query of a variable as the list of variables shows it.
  definition: { definition: string };
  // Of a query the Prometheus plugin takes the shortest step, which is named so in the panel's types alone.
  step: { interval: string };
  // An annotation's own fields for the Prometheus plugin.
  note: { expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string; useValueForTime: boolean };
}

type Takes<T, Unknown> = T | (Partial<T> & Unknown);

// A file has the words of an enumeration, not its members.
type Json<T> = 0 extends 1 & T ? T : T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

type Property<T, Prefix extends string = ''> = {
  [K in keyof T & string]-?: { id: `${Prefix}${K}`; value: T[K] };
}[keyof T & string];

type Common = Omit<FieldConfig, 'custom'>;

type Query = Takes<PrometheusDataQuery, More['step']>;

interface Shown<Type, Options, Custom> extends Omit<Panel, 'type' | 'targets' | 'options' | 'fieldConfig'> {
  type: Type;
  targets: Query[];
  options: Partial<Options>;
  fieldConfig: {
    defaults: Common & { custom?: Custom };
    overrides: Array<{ matcher: MatcherConfig; properties: Array<Property<Common> | Property<Custom, 'custom.'>> }>;
  };
}

type Timeline = Takes<Partial<timeline.Options>, More['pages']>;

type Every =
  | RowPanel
  | Shown<'stat', stat.Options, {}>
  | Shown<'state-timeline', Timeline, Takes<Partial<timeline.FieldConfig>, More['gaps']>>
  | Shown<'status-history', history.Options, Partial<history.FieldConfig>>
  | Shown<'table', table.Options, Partial<table.FieldConfig>>
  | Shown<'timeseries', series.Options, Partial<series.FieldConfig>>;

type Annotation = Omit<AnnotationQuery, 'target'> & { target?: Query };

type Variable = Omit<VariableModel, 'current'> & { current?: Takes<VariableOption, More['unchosen']> };

export type Board = Json<
  Omit<Dashboard, 'panels' | 'annotations' | 'templating'> & {
    panels: Every[];
    annotations: { list: Array<Takes<Annotation, More['note']>> };
    templating: { list: Array<Takes<Variable, More['definition']>> };
  }
>;
